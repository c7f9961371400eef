"""A small server that speaks the OpenAI chat API as the real ones do: whole answers and server-sent events, with usage.

It answers with the words of the question, one token a word. POST /v1/chat/completions; GET /v1/models. Knobs for tests
are fields of the request beside the API's own: `x_cost` puts a cost into the usage, `x_mode` cuts off, fails, leaves
usage out, compresses although nobody asked, or pauses between tokens.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ChatUpstream:
    """The server. `heads` and `bodies` are what has arrived; `finished` counts answers that went out whole."""

    heads: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    finished: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = {
                    line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head.split("\r\n")[1:-2]
                }
                body = b""
                if fields.get("transfer-encoding"):
                    while size := int(await reader.readline(), 16):
                        body += await reader.readexactly(size)
                        await reader.readline()
                    await reader.readline()
                else:
                    body = await reader.readexactly(int(fields.get("content-length", "0")))
                self.heads.append(head)
                if not await self._answer(head, json.loads(body) if body else {}, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, head: str, asked: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if head.startswith("GET /v1/models"):
            return await self._whole(writer, 200, {"object": "list", "data": [{"id": "echo-1", "object": "model"}]}, "")
        self.bodies.append(asked)
        mode = str(asked.get("x_mode", ""))
        words = " ".join(str(message["content"]) for message in asked["messages"]).split()
        usage: dict[str, Any] = {
            "prompt_tokens": len(words),
            "completion_tokens": len(words),
            "total_tokens": 2 * len(words),
        }
        if "x_cost" in asked:
            usage["cost"] = asked["x_cost"]
        if mode == "fail":
            return await self._whole(writer, 500, {"error": {"message": "out of order", "type": "server_error"}}, "")
        if asked.get("stream"):
            return await self._stream(writer, asked, words, usage, mode)
        document: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": " ".join(words)},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
        }
        if mode != "silent":
            document["usage"] = usage
        return await self._whole(writer, 200, document, mode)

    async def _whole(self, writer: asyncio.StreamWriter, status: int, document: dict[str, Any], mode: str) -> bool:
        body = json.dumps(document).encode()
        lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", "X-Usage-Cost: 0.0042"]
        if mode == "gzip":
            body = gzip.compress(body)
            lines.append("Content-Encoding: gzip")
        lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        self.finished += 1
        return True

    async def _stream(
        self, writer: asyncio.StreamWriter, asked: dict[str, Any], words: list[str], usage: dict[str, Any], mode: str
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        with_usage = bool((asked.get("stream_options") or {}).get("include_usage")) and mode != "silent"
        for number, word in enumerate(words):
            delta = {"role": "assistant", "content": word} if number == 0 else {"content": " " + word}
            await self._event(writer, asked, [{"index": 0, "delta": delta, "finish_reason": None}], with_usage, None)
            if mode == "slow":
                await asyncio.sleep(0.1)
            if mode == "cut" and number:
                writer.transport.abort()
                return False
        await self._event(writer, asked, [{"index": 0, "delta": {}, "finish_reason": "stop"}], with_usage, None)
        if with_usage:
            await self._event(writer, asked, [], True, usage)
        self._chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self.finished += 1
        return True

    async def _event(
        self,
        writer: asyncio.StreamWriter,
        asked: dict[str, Any],
        choices: list[dict[str, Any]],
        with_usage: bool,
        usage: dict[str, Any] | None,
    ) -> None:
        chunk: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": asked["model"],
            "choices": choices,
        }
        if with_usage:
            chunk["usage"] = usage
        self._chunk(writer, b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await writer.drain()

    def _chunk(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
