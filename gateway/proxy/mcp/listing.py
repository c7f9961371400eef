"""What an MCP publisher has on sale: the server's own lists with their prices, less what nobody may buy here.

A list by plain HTTP is asked for in a session of the gateway's own and kept for a moment; one that an MCP client asks
for comes out of that client's session. Pure but for `Lists`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.catalog.endpoints import Endpoint
from gateway.catalog.snapshot import AssetPrice, Publisher
from gateway.catalog.tools import tool_reading
from gateway.errors import EndpointNotOffered, EndpointProtected
from gateway.proxy.mcp.request import is_name
from gateway.proxy.quote import prepaid_price
from gateway.upstreams.mcp.messages import Message, Refused, fields_of
from gateway.upstreams.mcp.sessions import Send, Sessions
from pricing.money import format_amount
from pricing.tariffs import per_request
from pricing.usage import Usage

KEPT_SECONDS = 30.0
MOST_PAGES, MOST_ITEMS = 20, 2_000
PRICE = "tollway/price"


def endpoints_of(publisher: Publisher, tool: str) -> tuple[Endpoint | None, ...]:
    """Return what the publisher has documented of a tool, None for nothing; two when it can be read in two ways.

    A name that looks like a documented one is as dear and as protected as that. Raises EndpointProtected or
    EndpointNotOffered.
    """
    found = publisher.endpoints.match("POST", tool_reading(tool)) if publisher.endpoints else (None,)
    for endpoint in found:
        if endpoint is not None and endpoint.is_protected:
            raise EndpointProtected(endpoint.protection_reason or "The publisher has protected this tool.")
    if publisher.default_deny and None in found:
        raise EndpointNotOffered(f"{publisher.slug} sells only documented tools, and this is none of them.")
    return found


def price_of(publisher: Publisher, tool: str) -> tuple[AssetPrice, int] | None:
    """Return what a tool costs in atomic units of the primary asset; None for what cannot be bought."""
    price = prepaid_price(publisher)
    try:
        endpoints = endpoints_of(publisher, tool)
    except (EndpointProtected, EndpointNotOffered):
        return None
    known = [None if endpoint is None else endpoint.price for endpoint in endpoints]
    if price is None or (None in known and not price.prices.sells("POST")):
        return None
    usage = Usage(method="POST")
    return price, max(per_request.quote(price.prices, usage, amount).amount for amount in known)


def priced_tools(publisher: Publisher, tools: object) -> list[Message]:
    """Return the tools that can be bought, as the server describes them, each with its price."""
    priced: list[Message] = []
    for tool in _objects(tools):
        name = tool.get("name")
        found = price_of(publisher, name) if is_name(name) else None
        if found is None:
            continue
        price, amount = found
        shown = format_amount(amount, price.asset.decimals)
        said = f"Price: {shown} {price.asset.symbol} per call." if amount else "Price: free."
        described = str(tool.get("description") or "").rstrip()
        meta = {PRICE: {"amount": shown, "asset": price.asset.symbol, "network": price.asset.network_id}}
        priced.append(
            {
                **tool,
                "description": f"{described}\n\n{said}" if described else said,
                "_meta": {**fields_of(tool.get("_meta")), **meta},
            }
        )
    return priced


def tool_info(tool: Message) -> Message:
    """Return a priced tool as the contract's McpToolInfo, with its price beside it."""
    return {
        "name": tool["name"],
        "description": tool["description"],
        "input_schema": tool.get("inputSchema"),
        "price": tool["_meta"][PRICE],
    }


def resource_info(resource: Message) -> Message:
    """Return a resource as the contract's McpResourceInfo."""
    return {
        "uri": str(resource.get("uri")),
        "name": str(resource.get("name")),
        "description": resource.get("description"),
        "mime_type": resource.get("mimeType"),
    }


def _objects(value: object) -> list[Message]:
    found = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("Message", one) for one in found if isinstance(one, dict)]


@dataclass(slots=True)
class _Kept:
    items: list[Message]
    until: float


@dataclass(slots=True)
class Lists:
    """The lists that were asked for a moment ago. Whoever comes meanwhile waits for the same answer."""

    sessions: Sessions
    _kept: dict[tuple[Hashable, str], _Kept] = field(default_factory=dict[tuple[Hashable, str], _Kept])
    _locks: dict[tuple[Hashable, str], asyncio.Lock] = field(default_factory=dict[tuple[Hashable, str], asyncio.Lock])

    async def get(self, server: Hashable, send: Send, kind: str) -> list[Message]:
        """Return all of a server's `tools`, `resources` or `prompts`. Raises UpstreamError."""
        key = (server, kind)
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is None or kept.until < time.monotonic():
                kept = _Kept(await self._all(server, send, kind), time.monotonic() + KEPT_SECONDS)
                self._drop_old()
                self._kept[key] = kept
            return kept.items

    def _drop_old(self) -> None:
        now = time.monotonic()
        for key in [key for key, kept in self._kept.items() if kept.until < now]:
            del self._kept[key]
        for key in [key for key, lock in self._locks.items() if not lock.locked() and key not in self._kept]:
            del self._locks[key]

    async def _all(self, server: Hashable, send: Send, kind: str) -> list[Message]:
        items: list[Message] = []
        cursor: object = None
        for _ in range(MOST_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            response = await self.sessions.request((server, None), send, f"{kind}/list", params)
            if "result" not in response:
                if fields_of(response.get("error")).get("code") == -32601:  # a server without any
                    return items
                raise Refused(f"list its {kind}", response)
            result = fields_of(response["result"])
            items += _objects(result.get(kind))
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or len(items) >= MOST_ITEMS:
                break
        return items[:MOST_ITEMS]
