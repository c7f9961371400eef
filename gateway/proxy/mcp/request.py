"""What a request to an MCP publisher asks for: read from its path, its fields and its one message.

What does not live here: what is done about it (seller.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, cast
from urllib.parse import quote

from gateway.catalog.readings import AmbiguousPath, read_path
from gateway.errors import (
    EndpointNotOffered,
    InvalidRequest,
    InvalidTarget,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from gateway.proxy.body import request_body
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.framing import CLOSE, repeated
from gateway.upstreams.mcp.messages import BadMessage, Message, canonical, fields_of, is_id, parse

Operation = Literal["endpoint", "tools", "resources", "tool"]

MAX_NAME = 200
PAYMENT, KEY = "x402/payment", "tollway/idempotency-key"
OURS = frozenset({PAYMENT, KEY, "x402/payment-response"})
"""Members of `_meta` that are said to the gateway and go no further."""

# Requests and notifications of every version of MCP that has a stateless or a stateful form over HTTP. What is not
# here may run something (tasks do), so it is not passed on: whatever runs tools has its price.
FREE = frozenset(
    [
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    ]
)
CALL = "tools/call"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

SESSION, VERSION, METHOD, NAME = b"mcp-session-id", b"mcp-protocol-version", b"mcp-method", b"mcp-name"
PARAMETER = b"mcp-param-"
SINGLE = frozenset((SESSION, VERSION, METHOD, NAME))
VERSION_FORM = re.compile(rb"[0-9A-Za-z.-]{1,32}")
ENCODED = re.compile(rb"=\?base64\?([A-Za-z0-9+/=]*)\?=")
STATELESS_SINCE = b"2026"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. `params` is what goes to the server; `compared` is what makes two calls the same."""

    name: str
    params: Message
    id: str | int = 0

    @property
    def path(self) -> bytes:
        """Return where this tool is sold by plain HTTP, below the slug: what is priced, offered and receipted."""
        return b"/" + quote(self.name, safe="/~!$&'()*+,=:@").encode()

    @property
    def compared(self) -> bytes:
        """Return the text of what the tool is called with. Progress tokens and the like change nothing."""
        rest = {name: value for name, value in self.params.items() if name not in ("name", "_meta")}
        return canonical(rest)


@dataclass(frozen=True, slots=True)
class McpFields:
    """The fields that are MCP's, each at most once."""

    session: bytes | None
    version: bytes | None
    others: HeaderPairs
    streams: bool
    """Whether the caller takes an event stream."""

    @property
    def stateless(self) -> bool:
        """Say whether the caller speaks a version in which a closed stream cancels its request."""
        return self.version is not None and self.version >= STATELESS_SINCE


def operation_of(exchange: Exchange) -> Operation:
    """Return what a path and a method ask for. Raises EndpointNotOffered, MethodNotAllowed or InvalidTarget."""
    path, method = exchange.path, exchange.method
    here = f"/publishers/{exchange.slug}"
    if path in (b"", b"/"):
        raise EndpointNotOffered(
            f"{exchange.slug} sells tools: GET {here}/_tools lists them, POST {here}/<tool> calls one; MCP clients "
            f"connect to {here}/mcp."
        )
    if exchange.query:
        raise InvalidTarget("A call of an MCP publisher has no query: what a tool is called with goes in the body.")
    if path == b"/mcp":
        return _only(method, "endpoint", "GET", "POST", "DELETE")
    if path == b"/_tools":
        return _only(method, "tools", "GET")
    if path == b"/_resources":
        return _only(method, "resources", "GET")
    return _only(method, "tool", "POST")


def _only(method: str, operation: Operation, *allowed: str) -> Operation:
    if method not in allowed:
        raise MethodNotAllowed("This path has other methods; see Allow.", headers={"Allow": ", ".join(allowed)})
    return operation


def tool_named(path: bytes) -> str:
    """Return the name of the tool that a path below the slug means, decoded once. Raises InvalidTarget."""
    try:
        literal = read_path(path).literal
    except AmbiguousPath as error:
        raise InvalidTarget(f"The path names no tool: {error}.") from None
    return checked_name("/".join(literal))


def checked_name(name: object) -> str:
    """Return a tool's name. Raises InvalidTarget."""
    if not is_name(name):
        raise InvalidTarget(
            f"A tool's name has 1 to {MAX_NAME} printable characters, and no empty or dotted parts between slashes."
        )
    return name


def is_name(name: object) -> TypeGuard[str]:
    """Say whether a tool of this name can be called here."""
    return (
        isinstance(name, str)
        and 1 <= len(name) <= MAX_NAME
        and name.isprintable()
        and not any(part in ("", ".", "..") for part in name.split("/"))
    )


async def read_arguments(exchange: Exchange, most: int) -> ToolCall:
    """Return the call of the tool in the path with the body as its arguments. Raises Problem or ClientGone."""
    name = tool_named(exchange.path)
    body = await _body(exchange, most)
    return ToolCall(name, {"name": name, "arguments": _message(body) if body.strip() else {}})


async def read_message(exchange: Exchange, most: int) -> Message:
    """Return the one JSON object in the body. Raises Problem or ClientGone."""
    return _message(await _body(exchange, most))


def check_form(message: Message) -> None:
    """Raise InvalidRequest for what is no message of JSON-RPC, or one that is not passed on."""
    method, number, params = message.get("method"), message.get("id"), message.get("params")
    if message.get("jsonrpc") != "2.0":
        raise InvalidRequest('The message must have "jsonrpc": "2.0".')
    if "id" in message and not is_id(number):
        raise InvalidRequest("The id of a message must be a text or an integer.")
    if "method" in message:
        if not isinstance(method, str) or (method != CALL and method not in FREE):
            raise InvalidRequest("This method is not passed on.", mcp_error=_error(-32601, "Method not found"))
        if params is not None and not isinstance(params, dict):
            raise InvalidRequest("params must be an object.")
    elif "id" not in message or ("result" in message) == ("error" in message):
        raise InvalidRequest("The message is neither a request nor a notification nor a response.")


def call_in(message: Message) -> ToolCall:
    """Return the call of a tool that a message makes. Raises InvalidRequest or InvalidTarget."""
    number, params = message.get("id"), dict(fields_of(message.get("params")))
    if not is_id(number):
        raise InvalidRequest("A call of a tool must have an id: its result would reach nobody.")
    if "task" in params:
        raise InvalidRequest("Tools are not run as tasks here: call them and wait.")
    name = checked_name(params.get("name"))
    if not isinstance(params.get("arguments", {}), dict):
        raise InvalidRequest("arguments must be an object.")
    return ToolCall(name, without_ours(params), cast("str | int", number))


def without_ours(params: Message) -> Message:
    """Return params without what is said to the gateway alone."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or not OURS & cast("Message", meta).keys():
        return params
    rest = {name: value for name, value in cast("Message", meta).items() if name not in OURS}
    return {name: value for name, value in params.items() if name != "_meta"} | ({"_meta": rest} if rest else {})


def read_fields(exchange: Exchange) -> McpFields:
    """Return the fields that are MCP's. Raises InvalidRequest."""
    found: dict[bytes, bytes] = {}
    others: HeaderPairs = []
    streams = False
    for name, value in exchange.scope["headers"]:
        if name in SINGLE:
            if name in found:
                raise repeated(name)
            found[name] = value
        if name in (METHOD, NAME) or name.startswith(PARAMETER):
            others.append((name, value))
        elif name == b"accept":
            streams = streams or b"text/event-stream" in value.lower() or b"*/*" in value
    version = found.get(VERSION)
    if version is not None and VERSION_FORM.fullmatch(version) is None:
        raise InvalidRequest("MCP-Protocol-Version names no version.")
    return McpFields(found.get(SESSION), version, others, streams)


def check_agreement(fields: McpFields, message: Message) -> None:
    """Raise InvalidRequest when Mcp-Method or Mcp-Name say something else than the message: servers route by them."""
    method = message.get("method")
    meant = fields_of(message.get("params")).get(NAMED.get(str(method), ""))
    for name, value in fields.others:
        if (name == METHOD and value != str(method).encode()) or (name == NAME and _decoded(value) != meant):
            raise InvalidRequest("Mcp-Method and Mcp-Name must say what the message says.")


def take_payment(exchange: Exchange, message: Message) -> None:
    """Move the payment and the key of an MCP call to where the pipeline reads them. Raises InvalidRequest."""
    meta = fields_of(fields_of(message.get("params")).get("_meta"))
    payment, key = meta.get(PAYMENT), meta.get(KEY)
    fields = exchange.fields
    if b"payment-signature" in fields or b"x-payment" in fields:
        raise InvalidRequest(f"The payment of an MCP call goes into params._meta[{PAYMENT!r}], not into a header.")
    if payment is not None:
        if not isinstance(payment, dict):
            raise InvalidRequest(f"params._meta[{PAYMENT!r}] must be a payment of x402.")
        document = cast("Message", payment)
        name = b"x-payment" if document.get("x402Version") == 1 else b"payment-signature"
        fields[name] = base64.b64encode(canonical(document))
    if key is not None:
        if (
            not isinstance(key, str)
            or not key.isascii()
            or fields.get(b"idempotency-key", key.encode()) != key.encode()
        ):
            raise InvalidRequest(f"params._meta[{KEY!r}] must be a key as in Idempotency-Key, and the only one.")
        fields[b"idempotency-key"] = key.encode()


def _decoded(value: bytes) -> str | None:
    """Return what a field says that may be in base64 because of its characters."""
    match = ENCODED.fullmatch(value)
    try:
        return (base64.b64decode(match[1], validate=True) if match else value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _message(body: bytes) -> Message:
    try:
        return parse(body)
    except BadMessage as error:
        raise InvalidRequest(str(error), mcp_error=_error(-32700, str(error))) from None


def _error(code: int, said: str) -> dict[str, Any]:
    return {"code": code, "message": said}


async def _body(exchange: Exchange, most: int) -> bytes:
    kind = exchange.fields.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise UnsupportedMediaType("Send application/json.", headers={"Accept": "application/json"})
    body = await request_body(exchange)
    if body is None or isinstance(body, bytes):
        found = body or b""
        if len(found) > most:
            raise _too_large(most)
        return found
    parts = bytearray()
    async for piece in body:
        parts += piece
        if len(parts) > most:
            raise _too_large(most)
    return bytes(parts)


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"A message may have {most} bytes.", headers=CLOSE)
