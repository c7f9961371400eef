"""A node between us and the chain that can be told to misbehave: silent, slow, talking nonsense, losing answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

GARBAGE: dict[str, bytes] = {
    "html": b"<html>502 Bad Gateway</html>",
    "empty": b"",
    "null": b"null",
    "number": b"7",
    "empty batch": b"[]",
    "no id": b'[{"jsonrpc":"2.0","result":"0x1"}]',
    "wrong shapes": b'[{"jsonrpc":"2.0","id":0,"result":{"number":"zero"}},{"jsonrpc":"2.0","id":1,"result":[]}]',
    "bad error": b'{"jsonrpc":"2.0","id":0,"error":"no"}',
    "overloaded": b'{"jsonrpc":"2.0","id":0,"error":{"code":-32005,"message":"limit exceeded"}}',
    "deep": b"[" * 5_000,
}


class FlakyNode:
    """Forwards to a real node. `mode`: ok, down, slow, 500, lose (forwards, then hangs up), or a name in GARBAGE."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.mode = "ok"
        self.chain_id: str | None = None
        self.largest_batch = 1_000
        self.largest_range = 1_000_000
        self.url = ""
        self.seen: list[str] = []
        self._client = httpx.AsyncClient()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                answer = await self._answer(await reader.readexactly(length))
                if answer is None:
                    break
                status, body = answer
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        writer.close()

    async def _answer(self, body: bytes) -> tuple[int, bytes] | None:
        asked = json.loads(body)
        methods = [one["method"] for one in (asked if isinstance(asked, list) else [asked])]
        self.seen += methods
        if self.mode == "down":
            return None
        if self.mode == "slow":
            await asyncio.sleep(30)
        if self.mode == "500":
            return 500, b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'
        if self.mode in GARBAGE:
            return 200, GARBAGE[self.mode]
        if len(methods) > self.largest_batch:
            return 200, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batch too large"}}'
        if methods == ["eth_getLogs"]:
            query = asked["params"][0]
            if int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= self.largest_range:
                return 200, b'{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"block range too large"}}'
        headers = {"content-type": "application/json"}
        answer = (await self._client.post(self.upstream, content=body, headers=headers)).content
        if self.mode == "lose" and "eth_sendRawTransaction" in methods:
            return None
        return 200, self._translate(asked, answer)

    def _translate(self, asked: Any, answer: bytes) -> bytes:
        if self.chain_id is not None and isinstance(asked, dict) and asked["method"] == "eth_chainId":
            return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": self.chain_id}).encode()
        return answer


@contextlib.asynccontextmanager
async def flaky_node(upstream: str) -> AsyncIterator[FlakyNode]:
    """Run one."""
    node = FlakyNode(upstream)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
