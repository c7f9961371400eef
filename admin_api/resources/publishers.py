"""Category `publishers`: the store, and estimates. Paid calls: publisher_calls.py for the document, gateway/proxy."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from admin_api.kit.access import Public, ServicesDep, somebody
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Offset, page
from admin_api.kit.problems import refusals
from admin_api.resources import publisher_models as models
from admin_api.resources.publisher_calls import SLUG
from admin_api.store import facts
from admin_api.store.readiness import not_ready
from gateway.catalog.checks import one_of
from gateway.catalog.logos import FIND_LOGO, SVG_POLICY
from gateway.catalog.records import COUNT_STORE, FIND_IN_STORE, FIND_MANY, LIST_STORE, Publisher, assemble
from gateway.catalog.refusals import refused
from gateway.catalog.sales import FIND_SALE, schema_view
from gateway.catalog.snapshot import AssetPrice
from gateway.catalog.snapshot import Publisher as Sold
from gateway.catalog.suggest import Suggestion, suggest
from gateway.catalog.views import store_view
from gateway.catalog.vocabulary import PublisherCategory
from gateway.database.pool import Connection
from gateway.errors import KindNotServed, NotFound, UnknownPublisher
from gateway.proxy.onchain.offers import quote_in
from gateway.proxy.query_estimate import estimated
from gateway.proxy.query_looks import count_look
from gateway.services import Services
from pricing.money import format_amount
from pricing.tariffs import per_request
from pricing.usage import Usage

router = APIRouter(prefix="/publishers", tags=["publishers"], route_class=StrictRoute)

SuggestType = Annotated[str, Query(alias="type", description='"publisher", "agent" or "both"')]
Task = Annotated[str, Query(min_length=1, max_length=1_000)]
Search = Annotated[str | None, Query(max_length=200)]
LOGO_SECONDS = 300


@router.get("", operation_id="list_store_publishers", responses=refusals(400, 429, 500))
async def list_store_publishers(
    _address: Public,
    services: ServicesDep,
    is_verified: bool | None = None,
    category: PublisherCategory | None = None,
    search: Search = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Offset = 0,
) -> models.PaginatedPublishersResponse:
    """List active publishers with their prices, newest first."""
    term = _storable("search", search)
    filters = (is_verified, category.value if category else None, term)
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        publishers = await assemble(connection, await LIST_STORE.all(connection, *filters, limit, offset))
        total = await COUNT_STORE.one(connection, *filters)
    shown = [_shown(services, publisher) for publisher in publishers]
    meta = models.OffsetPaginationMeta.model_validate(page(shown, total=total, limit=limit, offset=offset))
    return models.PaginatedPublishersResponse(data=shown, pagination=meta)


@router.get("/suggest", operation_id="suggest_publishers", responses=refusals(400, 429, 500))
async def suggest_publishers(
    _address: Public,
    services: ServicesDep,
    query: Task,
    kind: SuggestType = "both",
    limit: Annotated[int, Query(ge=1, le=20)] = 5,
) -> models.SuggestDataResponse:
    """Suggest publishers for a task in plain words, best first. Agents are not suggested yet."""
    try:
        one_of(kind, ("publisher", "agent", "both"))
    except ValueError as error:
        raise refused("type", str(error)) from None
    task = _storable("query", query) or ""
    found: list[models.PublisherSuggestion] = []
    if kind != "agent":
        async with services.database.acquire() as connection:
            found = await _suggestions(connection, await suggest(connection, task, limit))
    return models.SuggestDataResponse(data=models.SuggestResponse(publishers=found, agents=[]))


@router.get(SLUG, operation_id="get_store_publisher", responses=refusals(404, 429, 500))
async def get_store_publisher(slug: str, _address: Public, services: ServicesDep) -> models.PublisherDataResponse:
    """Return an active publisher with its prices and endpoints, or what a database publisher has on sale."""
    async with services.database.acquire() as connection:
        publisher = await _in_store(connection, slug)
        sale = await FIND_SALE.first(connection, publisher.record.id)
    shown = _shown(services, publisher)
    if sale is not None:
        shown.database_schema = models.DatabaseSchema.model_validate(schema_view(sale, owner=False))
    return models.PublisherDataResponse(data=shown)


@router.get(
    f"{SLUG}/logo",
    operation_id="get_store_publisher_logo",
    response_class=Response,
    responses={**refusals(404, 429), 200: {"content": {"image/*": {}}}, 302: {"description": "Found"}},
)
async def get_store_publisher_logo(slug: str, request: Request, _address: Public, services: ServicesDep) -> Response:
    """Return the logo, or lead to where it is."""
    async with services.database.acquire() as connection:
        place = await FIND_LOGO.first(connection, _slug(slug))
    logo = place.stored() if place else None
    if place is None or (logo is None and place.logo_url is None):
        raise NotFound("This publisher has no logo.")
    caching = {"Cache-Control": f"public, max-age={LOGO_SECONDS}"}
    if logo is None:
        return Response(status_code=302, headers={**caching, "Location": str(place.logo_url)})
    fields = {**caching, "ETag": logo.etag, "X-Content-Type-Options": "nosniff", "Content-Security-Policy": SVG_POLICY}
    if _matches(request.headers.get("if-none-match"), logo.etag):
        return Response(status_code=304, headers=fields)
    return Response(logo.body, media_type=logo.content_type, headers=fields)


@router.post(
    f"{SLUG}/estimate", operation_id="estimate_query", responses=refusals(400, 404, 422, 429, 500, 501, 502, 503, 504)
)
async def estimate_query(
    slug: str, body: models.EstimateRequestBody, address: Public, services: ServicesDep, request: Request
) -> models.EstimateResponse:
    """Say what a call would cost, without a charge. An API costs its call price, whatever is asked;
    where that is known after the call only, the estimate is the most that it may be.

    The rows of a query are the planner's, corrected by what such queries gave before and rounded up to 10, 20, 50,
    100, …: an estimate tells no data. With an API key it learns from the caller's own paid answers at once.
    """
    publisher = services.catalog.find(_slug(slug))
    if publisher is None:
        raise UnknownPublisher("No publisher has this slug. GET /publishers lists those that there are.")
    if body.publisher_id != publisher.id:
        raise refused("publisher_id", "is not the id of the publisher in the path")
    if publisher.category == "database" and (publisher.sale is None or publisher.not_served is not None):
        raise KindNotServed(f"{publisher.slug} {publisher.not_served}; this gateway cannot query it yet.")
    price = next((one for one in publisher.prices if body.asset_id in (None, one.asset.id)), None)
    if price is None:
        raise refused("asset_id", "is not an asset that this publisher accepts")
    if publisher.sale is not None:
        await count_look(services, address, publisher.id)
        known = await somebody(request, services)
        account_id = known.account_id if known is not None else None
        rows = await estimated(services, publisher, publisher.sale, body.query, body.params or [], account_id)
        amount = price.rows.quote(rows).amount
    elif price.metered is not None:
        rows, amount = 1, price.metered.most.amount
    else:
        rows, amount = 1, _call_price(publisher, price)
    return models.EstimateResponse(
        publisher_slug=publisher.slug,
        publisher_name=publisher.name,
        asset_symbol=price.asset.symbol,
        estimated_rows=rows,
        estimated_cost=format_amount(amount, price.asset.decimals, places=2),
        estimated_cost_atomic=amount,
    )


def _call_price(publisher: Sold, price: AssetPrice) -> int:
    """Return what a POST costs where it is sold, else the dearest call: what has a price is not told to be free."""
    if price.prices.sells("POST"):
        return per_request.quote(price.prices, Usage(method="POST")).amount
    amounts = [per_request.quote(price.prices, Usage(method=method)).amount for method, _ in price.prices.per_method]
    for endpoint in publisher.endpoints.listed:
        offered = quote_in(price, publisher, endpoint.method, [endpoint])
        amounts += [] if offered is None else [offered.amount]
    return max(amounts, default=0)


async def _in_store(connection: Connection, slug: str) -> Publisher:
    record = await FIND_IN_STORE.first(connection, _slug(slug))
    if record is None:
        raise UnknownPublisher("No publisher has this slug. GET /publishers lists those that there are.")
    return (await assemble(connection, [record]))[0]


async def _suggestions(connection: Connection, found: list[Suggestion]) -> list[models.PublisherSuggestion]:
    records = {record.id: record for record in await FIND_MANY.all(connection, [one.publisher_id for one in found])}
    publishers = {one.record.id: one for one in await assemble(connection, list(records.values()))}
    return [_suggestion(publishers[one.publisher_id], one) for one in found if one.publisher_id in publishers]


def _suggestion(publisher: Publisher, suggestion: Suggestion) -> models.PublisherSuggestion:
    record, prices = publisher.record, None
    if publisher.pricing:
        wire = publisher.pricing[0].wire(publisher.assets[0])
        prices = models.PricingSummary(
            base_price_per_1000_rows=wire["base_price_per_1000_rows"], price_per_call=wire["price_per_call"]
        )
    return models.PublisherSuggestion(
        slug=record.slug,
        name=record.name,
        description=record.description,
        capabilities=record.document.get("capabilities") or [],
        pricing=prices,
        score=suggestion.score,
        match_reason=suggestion.reason,
    )


def _shown(services: Services, publisher: Publisher) -> models.PublisherResponse:
    view = store_view(publisher, services.settings.public_url)
    offered = {(one["method"], one["path"]) for one in facts.sold(publisher)}
    view["endpoints"] = view["endpoints"] and [
        one for one in view["endpoints"] if one.get("is_protected") or (one["method"], one["path"]) in offered
    ]
    shown = models.PublisherResponse.model_validate(view)
    shown.x402_accepts = models.payable(publisher, services.kinds)
    shown.not_ready = not_ready(publisher, services)
    shown.ready = shown.not_ready is None
    return shown


def _slug(text: str) -> str:
    """Return a slug as it can be asked of the database; what none can be is simply unknown."""
    return text if text.isascii() and text.isprintable() and len(text) <= 64 else ""


def _storable(field: str, text: str | None) -> str | None:
    if text is not None and ("\x00" in text or any("\ud800" <= char <= "\udfff" for char in text)):
        raise refused(field, "contains NUL or half a character")
    return text


def _matches(header: str | None, etag: str) -> bool:
    """Evaluate If-None-Match with the weak comparison of RFC 9110 section 13.1.2."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {part.strip().removeprefix("W/") for part in header.split(",")}
