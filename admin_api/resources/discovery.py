"""What agents and crawlers look for at a host they do not know. Extensions: the contract has none of it.

`/llms.txt` says in a page what this gateway is; `/.well-known/x402` lists what wallets can buy; a publisher's
`openapi.json` is what it has on sale. The first two are made from the settings and the catalog in memory, and kept
until the catalog changes: whoever asks for them costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

from admin_api.kit.access import Public, ServicesDep
from admin_api.kit.needs import OPEN
from admin_api.kit.problems import refusals
from admin_api.resources.publisher_calls import SLUG
from admin_api.resources.publisher_models import payable
from admin_api.store.listing import line_of
from admin_api.store.openapi import document
from gateway.catalog.records import FIND_IN_STORE, assemble
from gateway.catalog.snapshot import Publisher
from gateway.errors import UnknownPublisher
from gateway.json_text import json_text
from gateway.payments.x402 import v2
from gateway.proxy.onchain.offers import Offers
from gateway.proxy.quote import rate_of
from gateway.services import Services

EXTENSION: dict[str, Any] = {"x-extension": True}
router = APIRouter(tags=["extensions"])

MAX_ITEMS = 2_000
MAX_LISTED = 100
CACHING = {"Cache-Control": "public, max-age=60"}

LLMS = """# Tollway

> A gateway where programs pay per call for APIs and databases. An agent registers by itself, pays from a balance{wallets},
> and a call that the publisher does not deliver costs nothing.

## Use it

1. Register, no human needed: `POST {base}/auth/agent` with the JSON body `{{}}`. Keep `data.agent.api_key`: it is shown once.
2. Send `Authorization: Bearer <api_key>` with every call. Credit to begin with: `POST {base}/wallet/bonus/signup`.
3. Find a publisher: `GET {base}/publishers/suggest?query=<task in words>`, then `GET {base}/publishers/<slug>`.
4. Call it: any method on `{base}/publishers/<slug>/<path>`; a database: `POST {base}/publishers/<slug>` with `{{"query": "SELECT …"}}`;
   MCP tools: an MCP client at `{base}/publishers/<slug>/mcp`, or `GET …/_tools` and `POST …/<tool>` with its arguments.
   `X-Cost` says what it cost. 402 says what is missing{or_how}; nothing was charged then.
   Where a publisher promises refunds, its 402 and `GET {base}/publishers/<slug>` say which answers cost nothing (`refund_rules`).
5. Send a fresh `Idempotency-Key` with each purchase, and repeat with the same key when the connection breaks.

## More

- [The same with recovery, limits and receipts]({base}/skill.md)
- [Every operation of the API]({base}/openapi.json): OpenAPI 3.1
- [Errors]({base}/problems): what each means and what to do
- [The store]({base}/publishers): JSON; of one publisher also `{base}/publishers/<slug>/openapi.json` with prices{well_known}

## Publishers

{publishers}
"""  # noqa: E501 - the text as it is served


@router.get(
    "/llms.txt", operation_id="llms_txt", dependencies=[OPEN], openapi_extra=EXTENSION, response_class=PlainTextResponse
)
async def llms_txt(request: Request, services: ServicesDep) -> Response:
    """Say in one page what this gateway is, how a program uses it, and what is on sale."""
    text = _kept(request, "llms", services.catalog.reloads, lambda: _llms(services).encode())
    return PlainTextResponse(text, headers=CACHING)


def _llms(services: Services) -> str:
    base = services.settings.public_url
    served = [publisher for publisher in services.catalog.publishers if publisher.not_served is None]
    lines = [line_of(publisher, base) for publisher in served[:MAX_LISTED]]
    if len(served) > MAX_LISTED:
        lines.append(f"- and {len(served) - MAX_LISTED} more: `GET {base}/publishers`")
    onchain = bool(services.settlements.parties)
    return LLMS.format(
        base=base,
        wallets=", or from a wallet without an account (x402)" if onchain else "",
        or_how=", or how a wallet pays by x402" if onchain else "",
        well_known=f"\n- [What wallets can buy]({base}/.well-known/x402): x402 version 2" if onchain else "",
        publishers="\n".join(lines) or "None yet.",
    )


@router.get("/.well-known/x402", operation_id="well_known_x402", dependencies=[OPEN], openapi_extra=EXTENSION)
async def well_known_x402(request: Request, services: ServicesDep) -> dict[str, Any]:
    """List the calls that wallets can pay by x402: URLs in `resources`, with their offers in `items`."""
    body = _kept(request, "x402", services.catalog.reloads, lambda: json_text(_x402(services)))
    return Response(body, media_type="application/json", headers=CACHING)  # pyright: ignore[reportReturnType]


@router.get(
    f"/publishers{SLUG}/openapi.json",
    operation_id="get_store_publisher_openapi",
    openapi_extra=EXTENSION,
    responses=refusals(404, 429),
)
async def get_store_publisher_openapi(slug: str, _address: Public, services: ServicesDep) -> dict[str, Any]:
    """Return the OpenAPI document of what a publisher has on sale, with x-payment-info."""
    async with services.database.acquire() as connection:
        record = await FIND_IN_STORE.first(connection, slug) if slug.isascii() and slug.isprintable() else None
        if record is None:
            raise UnknownPublisher("No publisher has this slug. GET /publishers lists those that there are.")
        publisher = (await assemble(connection, [record]))[0]
    made = document(publisher, services.settings.public_url, onchain=bool(payable(publisher, services.kinds)))
    return Response(json_text(made), media_type="application/json", headers=CACHING)  # pyright: ignore[reportReturnType]


def _kept(request: Request, name: str, version: int, make: Callable[[], bytes]) -> bytes:
    """Return a document made for this version of the catalog, or the one that was made for it before."""
    kept: dict[str, tuple[int, bytes]] = request.app.state.kept
    found = kept.get(name)
    if found is None or found[0] != version:
        found = kept[name] = (version, make())
    return found[1]


def _x402(services: Services) -> dict[str, Any]:
    offers = Offers(services.kinds, services.settlements.parties)
    items: list[dict[str, Any]] = []
    for publisher in services.catalog.publishers:
        if len(items) < MAX_ITEMS:
            items += _items(services, offers, publisher)
    items = items[:MAX_ITEMS]
    # Crawlers ask for what is listed, and nobody can ask for a template.
    resources = list(dict.fromkeys(item["resource"] for item in items if "{" not in item["resource"]))
    more = f"{services.settings.public_url}/llms.txt"
    return {
        "x402Version": v2.VERSION,
        "version": 1,
        "resources": resources,
        "items": items,
        "instructions": f"What binds is the 402 of the call itself. How to use this gateway: {more}",
    }


def _items(services: Services, offers: Offers, publisher: Publisher) -> list[dict[str, Any]]:
    """Return a publisher's calls that a wallet can pay, as the facilitators' listings have them: at their price, or at
    the most that they may cost (`pricing`).
    """
    if publisher.not_served is not None or publisher.category != "integration" or publisher.relays:
        return []
    found: list[dict[str, Any]] = []
    for endpoint in publisher.endpoints.listed:
        if endpoint.is_protected or (publisher.mcp and endpoint.method != "POST"):  # a tool is called by POST
            continue
        refunds = endpoint.refunds or publisher.delivery.refunds
        chosen = publisher.onchain.settlement_for([endpoint], services.settings.x402.settlement)
        own = endpoint.price is not None or not publisher.prices
        metered = not own and rate_of(publisher.prices[0], endpoint.method, [None]) is not None
        tiered = not own and not metered and publisher.prices[0].tiers is not None
        sell = offers.of_metered if metered else offers.of_call
        sales = sell(publisher, endpoint.method, [endpoint], chosen)
        if sales:
            found.append(
                {
                    "resource": f"{services.settings.public_url}/publishers/{publisher.slug}{endpoint.path}",
                    "type": "http",
                    "method": endpoint.method,
                    "x402Version": v2.VERSION,
                    "accepts": [v2.requirements(sale.offer) for sale in sales],
                    "metadata": {
                        "publisher": publisher.slug,
                        "name": publisher.name,
                        "pricing": "metered" if metered else "tiered" if tiered else "fixed",
                        **({"free_when": refunds.free_when} if refunds.free_when else {}),
                    },
                }
            )
    return found
