"""JSON-RPC to an Ethereum node: one connection pool per node, batches, bounds, and two kinds of failure.

`NodeRefused` is the node's own answer: it understood and said no (a revert, a nonce that is used). `NoAnswer` is
everything else: not reached, too slow, garbage, overloaded. After it nobody knows whether the node acted, so what sends
transactions must treat it as "maybe". What does not live here: what the calls mean (node.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import httpx
import orjson

MAX_BATCH = 100
MAX_ANSWER = 16 * 1024 * 1024
MAX_MESSAGE = 300
MAX_CONNECTIONS = 16
LIMIT_EXCEEDED = frozenset({-32005, -32097, 429})


class RpcError(Exception):
    """A call to the node did not give a result."""


class NodeRefused(RpcError):
    """The node answered with an error. `data` is the revert data when the call reverted, else empty."""

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        super().__init__(f"{message[:MAX_MESSAGE]} ({code})")
        self.code = code
        self.message = message[:MAX_MESSAGE]
        self.data = data


class NoAnswer(RpcError):
    """There is no answer that means anything: whether the node acted is unknown."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call: a method and its JSON parameters."""

    method: str
    params: tuple[object, ...] = ()


class Calls(Protocol):
    """The door to a network, whether behind it is one node (Rpc) or several (endpoints.py)."""

    async def call(self, method: str, *params: object) -> Any: ...
    async def batch(self, requests: Sequence[Request]) -> list[Any | RpcError]: ...
    async def aclose(self) -> None: ...


class Rpc:
    """The door to one node. URLs often hold an access key, so nothing here ever shows more than the host."""

    def __init__(self, url: str, *, timeout: float = 10.0, client: httpx.AsyncClient | None = None) -> None:
        self._url = url
        self._timeout = timeout
        self.host = urlsplit(url).hostname or "?"
        self._largest_batch = MAX_BATCH
        self._owned = client is None
        self._client = client or httpx.AsyncClient(
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        )

    def __repr__(self) -> str:
        return f"Rpc({self.host})"

    async def aclose(self) -> None:
        """Close the connections."""
        if self._owned:
            await self._client.aclose()

    async def call(self, method: str, *params: object) -> Any:
        """Return the result of one call. Raises NodeRefused or NoAnswer."""
        request = {"jsonrpc": "2.0", "id": 0, "method": method, "params": list(params)}
        return _result(await self._post(request))

    async def batch(self, requests: Sequence[Request]) -> list[Any | RpcError]:
        """Return a result or an RpcError for each request, in order. Never raises for the node's sake."""
        results: list[Any | RpcError] = []
        while len(results) < len(requests):
            part = requests[len(results) : len(results) + self._largest_batch]
            answers = await self._batch(part)
            if answers is None:  # the batch was refused whole: nodes differ in how many calls they take at once
                self._largest_batch = max(len(part) // 2, 1)
                continue
            results += answers
        return results

    async def _batch(self, requests: Sequence[Request]) -> list[Any | RpcError] | None:
        body = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": list(request.params)}
            for number, request in enumerate(requests)
        ]
        try:
            answer = await self._post(body)
        except RpcError as error:
            return [error] * len(requests)
        if not isinstance(answer, list):
            refused = _outcome(answer)
            if isinstance(refused, NodeRefused) and len(requests) > 1:
                return None
            silent = NoAnswer("a batch was answered by one object")
            return [refused if isinstance(refused, RpcError) else silent] * len(requests)
        by_id = {
            part["id"]: part
            for part in cast("list[dict[str, Any]]", answer)
            if isinstance(part, dict) and isinstance(part.get("id"), int)  # pyright: ignore[reportUnnecessaryIsInstance]
        }
        return [
            _outcome(by_id[number]) if number in by_id else NoAnswer("no answer in the batch")
            for number in range(len(requests))
        ]

    async def _post(self, body: object) -> Any:
        try:
            async with asyncio.timeout(self._timeout):  # of the whole answer: httpx bounds only each piece
                return await self._exchange(orjson.dumps(body))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise NoAnswer(f"{self.host}: {type(error).__name__}") from None

    async def _exchange(self, content: bytes) -> Any:
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=content, headers=headers) as response:
            raw = bytearray()
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > MAX_ANSWER:
                    raise NoAnswer(f"{self.host}: the answer is longer than {MAX_ANSWER} bytes")
        # Some nodes send JSON-RPC errors with status 400; 5xx and 429 say nothing about what was done.
        if response.status_code not in (200, 400):
            raise NoAnswer(f"{self.host}: HTTP {response.status_code}")
        try:
            return orjson.loads(bytes(raw))
        except orjson.JSONDecodeError:
            raise NoAnswer(f"{self.host}: the answer is not JSON") from None


def _result(answer: Any) -> Any:
    outcome = _outcome(answer)
    if isinstance(outcome, RpcError):
        raise outcome
    return outcome


def _outcome(answer: Any) -> Any | RpcError:
    """Return a response object's result, or its error as an exception object."""
    if not isinstance(answer, dict):
        return NoAnswer("the answer is not a JSON-RPC object")
    parts = cast("dict[str, Any]", answer)
    error = parts.get("error")
    if error is None:
        return parts["result"] if "result" in parts else NoAnswer("the answer has neither result nor error")
    if not isinstance(error, dict):
        return NoAnswer("the answer's error is not an object")
    fault = cast("dict[str, Any]", error)
    code, message = fault.get("code"), fault.get("message")
    if not isinstance(code, int) or not isinstance(message, str):
        return NoAnswer("the answer's error has no code and message")
    if code in LIMIT_EXCEEDED:
        return NoAnswer(f"the node is overloaded ({code})")
    return NodeRefused(code, message, _revert_data(fault.get("data")))


def _revert_data(data: Any) -> bytes:
    """Return revert bytes: nodes put them as hex into `data`, or one level below."""
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data).get("data")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
