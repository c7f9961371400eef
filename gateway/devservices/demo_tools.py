"""The MCP server of the demo upstream, at /mcp: three tools over the demo data, a resource and a prompt.

Streamable HTTP without sessions: one message in, one answer out, as JSON, or as an event stream for a call that asks
for progress. Real enough for official clients. It knows no prices; the demo publisher's are in seed.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import orjson

from gateway.devservices import demo_data
from gateway.devservices.demo_data import UnknownFact

Message = dict[str, Any]

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
SERVER = {"name": "tollway-demo-tools", "version": "1.0"}
SYMBOLS = "market://symbols"
MOST_FOUND, MOST_DAYS = 20, 366
PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602


class Refused(Exception):
    """A message that is answered with an error of JSON-RPC."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


def _text(description: str) -> Message:
    return {"type": "string", "description": description}


TOOLS: list[Message] = [
    {
        "name": "list_symbols",
        "description": "The symbols that are traded, with the names of their companies.",
        "inputSchema": {"type": "object", "properties": {}},
    },
    {
        "name": "price_report",
        "description": "Highest, lowest and average closing price of a stock between two days, and its change.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "symbol": _text("Such as ACME"),
                "first": _text("ISO day; by default 30 days before the last"),
                "last": _text("ISO day; by default today (UTC)"),
            },
            "required": ["symbol"],
        },
    },
    {
        "name": "find_character",
        "description": "Unicode characters whose name holds every word.",
        "inputSchema": {
            "type": "object",
            "properties": {"words": _text("Such as snowman")},
            "required": ["words"],
        },
    },
]
RESOURCES: list[Message] = [
    {
        "uri": SYMBOLS,
        "name": "symbols",
        "description": "The symbols that are traded.",
        "mimeType": "application/json",
    }
]
PROMPTS: list[Message] = [
    {
        "name": "compare_stocks",
        "description": "Asks for a comparison of two stocks.",
        "arguments": [{"name": "first", "required": True}, {"name": "second", "required": True}],
    }
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a message is answered with: a response, none (a notification), or the messages of an event stream."""

    response: Message | None = None
    stream: AsyncIterator[bytes] | None = None
    status: int = 200


def answer_to(content: bytes) -> Answer:
    """Return the answer to one message. Never raises."""
    try:
        message = orjson.loads(content)
    except orjson.JSONDecodeError:
        return Answer(_error(None, PARSE_ERROR, "the body must be one JSON-RPC message"), status=400)
    if not isinstance(message, dict) or not isinstance(cast("Message", message).get("method"), str):
        return Answer(_error(None, INVALID_REQUEST, "the body must be one request or notification"), status=400)
    asked = cast("Message", message)
    if "id" not in asked:
        return Answer(status=202)
    params: Message = asked["params"] if isinstance(asked.get("params"), dict) else {}
    meta: object = params.get("_meta")
    token: object = cast("Message", meta).get("progressToken") if isinstance(meta, dict) else None
    if asked["method"] == "tools/call" and token is not None:
        return Answer(stream=_with_progress(asked["id"], params, token))
    return Answer(_response(asked["id"], asked["method"], params))


def _response(number: object, method: str, params: Message) -> Message:
    try:
        if method not in METHODS:
            raise Refused(NO_METHOD, f"there is no method {method}")
        return {"jsonrpc": "2.0", "id": number, "result": METHODS[method](params)}
    except Refused as refused:
        return _error(number, refused.code, str(refused))


def _error(number: object, code: int, said: str) -> Message:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": said}}


async def _with_progress(number: object, params: Message, token: object) -> AsyncIterator[bytes]:
    """Yield the events of a call that asks for progress."""
    progress = {"progressToken": token, "progress": 1, "total": 2, "message": "reading the data"}
    yield _event({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
    yield _event(_response(number, "tools/call", params))


def _event(message: Message) -> bytes:
    return b"event: message\ndata: " + orjson.dumps(message) + b"\n\n"


def _initialize(params: Message) -> Message:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
        "serverInfo": SERVER,
        "instructions": "Prices are of invented companies, generated, and the same for ever.",
    }


def _call(params: Message) -> Message:
    """Run a tool. What it cannot do is a result that says so; a tool that is not there is an error. Raises Refused."""
    tool = RUN.get(str(params.get("name")))
    arguments: object = params.get("arguments") or {}
    if tool is None:
        raise Refused(INVALID_PARAMS, f"there is no tool {params.get('name')}")
    if not isinstance(arguments, dict):
        raise Refused(INVALID_PARAMS, "arguments must be an object")
    try:
        found = tool(cast("Message", arguments))
    except UnknownFact as missing:
        return {"content": [{"type": "text", "text": str(missing)}], "isError": True}
    return {"content": [{"type": "text", "text": orjson.dumps(found).decode()}], "structuredContent": found}


def _list_symbols(_arguments: Message) -> Message:
    return {"symbols": {symbol: name for symbol, (name, _) in demo_data.SYMBOLS.items()}}


def _price_report(arguments: Message) -> Message:
    symbol = str(arguments.get("symbol") or "").upper()
    last = demo_data.parse_day(_day(arguments, "last"))
    first = demo_data.parse_day(_day(arguments, "first")) if arguments.get("first") else last - timedelta(days=30)
    days = list(demo_data.history(symbol, first, last, MOST_DAYS))
    if not days:
        raise UnknownFact("first must not be after last")
    closes = [cast("float", day["close"]) for day in days]
    return {
        "symbol": symbol,
        "first": days[0]["day"],
        "last": days[-1]["day"],
        "highest": max(closes),
        "lowest": min(closes),
        "average": round(sum(closes) / len(closes), 2),
        "change_percent": round((closes[-1] / closes[0] - 1) * 100, 2),
        "currency": "USD",
    }


def _day(arguments: Message, name: str) -> str | None:
    value = arguments.get(name)
    return None if value is None else str(value)


def _find_character(arguments: Message) -> Message:
    words = str(arguments.get("words") or "")
    if not words.strip():
        raise UnknownFact("words must name what to search for, such as snowman")
    return demo_data.search(words, MOST_FOUND)


def _read(params: Message) -> Message:
    if params.get("uri") != SYMBOLS:
        raise Refused(INVALID_PARAMS, f"there is no resource {params.get('uri')}")
    text = orjson.dumps(_list_symbols({})).decode()
    return {"contents": [{"uri": SYMBOLS, "mimeType": "application/json", "text": text}]}


def _prompt(params: Message) -> Message:
    arguments: object = params.get("arguments")
    if params.get("name") != PROMPTS[0]["name"] or not isinstance(arguments, dict):
        raise Refused(INVALID_PARAMS, "there is only compare_stocks, with first and second")
    named = cast("Message", arguments)
    text = f"Compare {named.get('first')} with {named.get('second')} by their price_report."
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}


RUN: dict[str, Callable[[Message], Message]] = {
    "list_symbols": _list_symbols,
    "price_report": _price_report,
    "find_character": _find_character,
}
METHODS: dict[str, Callable[[Message], Message]] = {
    "initialize": _initialize,
    "ping": lambda _params: {},
    "tools/list": lambda _params: {"tools": TOOLS},
    "tools/call": _call,
    "resources/list": lambda _params: {"resources": RESOURCES},
    "resources/templates/list": lambda _params: {"resourceTemplates": []},
    "resources/read": _read,
    "prompts/list": lambda _params: {"prompts": PROMPTS},
    "prompts/get": _prompt,
}
