"""A chat model of the demo upstream that invents nothing: it repeats the question, in the format of the OpenAI API.

Whole answers and server-sent events, with token counts: a word is a token. Real enough for official clients, and for
seeing what pay_per_use charges. It knows no prices; the demo publisher's are in seed.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import orjson

MODEL = "echo-1"
CREATED = 1_767_225_600
PAUSE = 0.02
"""Seconds between the tokens of a stream."""


class BadQuestion(ValueError):
    """A request is none of the chat API. The message says why."""


def read_question(content: bytes) -> tuple[list[str], dict[str, Any]]:
    """Return the words of a request's messages, and the request. Raises BadQuestion."""
    try:
        asked = orjson.loads(content)
        texts = [str(message["content"]) for message in asked["messages"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise BadQuestion('the body must be JSON with "messages" as in the OpenAI chat API') from None
    return " ".join(texts).split(), cast("dict[str, Any]", asked)


def completion(words: list[str], asked: Mapping[str, Any]) -> dict[str, object]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": " ".join(words), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**_head(words, asked, "chat.completion"), "choices": [choice], "usage": _usage(words)}


async def chunks(words: list[str], asked: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Yield the events of a streamed answer. Like the real ones, it counts only for those who ask."""
    options = asked.get("stream_options")
    counted = isinstance(options, dict) and bool(cast("dict[str, Any]", options).get("include_usage"))
    common = {**_head(words, asked, "chat.completion.chunk"), **({"usage": None} if counted else {})}
    for number, word in enumerate(words):
        delta = {"role": "assistant", "content": word} if number == 0 else {"content": f" {word}"}
        yield _event({**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await asyncio.sleep(PAUSE)
    yield _event({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if counted:
        yield _event({**common, "choices": [], "usage": _usage(words)})
    yield b"data: [DONE]\n\n"


def _head(words: list[str], asked: Mapping[str, Any], kind: str) -> dict[str, object]:
    name = hashlib.sha256(" ".join(words).encode()).hexdigest()[:24]
    return {"id": f"chatcmpl-{name}", "object": kind, "created": CREATED, "model": str(asked.get("model") or MODEL)}


def _usage(words: list[str]) -> dict[str, int]:
    return {"prompt_tokens": len(words), "completion_tokens": len(words), "total_tokens": 2 * len(words)}


def _event(document: dict[str, object]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"
