"""The catalog in memory: every publisher ready to price and forward, no query on the hot path.

Loaded whole at start; a commit that changes a publisher or its prices notifies every worker, which reads that one
again. While the listener is away changes would be missed, so when it is back everything is loaded again; `listening`
says which it is. What does not live here: validation (publishers.py) and the meaning of prices (pricing/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from gateway.catalog.assets import LIST_ASSETS, Asset
from gateway.catalog.authentication import Authentication, compile_authentication, trades_key
from gateway.catalog.balances import BalanceRule, compile_balances
from gateway.catalog.delivery import DeliveryPolicy, compile_delivery, refunds_of
from gateway.catalog.endpoints import Endpoint, EndpointTable
from gateway.catalog.metering import compile_purchase, compile_rate, compile_watch
from gateway.catalog.prices import document_states_price, entry_states_price
from gateway.catalog.sales import Sale, compile_sale, is_postgres
from gateway.catalog.served import not_served
from gateway.catalog.settlement import OnchainPolicy, compile_settlement
from gateway.catalog.tiers import compile_tiers
from gateway.catalog.user_oauth import UserOauth, compile_user_oauth
from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement
from pricing.money import MoneyError, parse_amount, parse_ratio, percent_to_ppm
from pricing.reported import Watch
from pricing.tariffs.pay_per_use import UsageRate
from pricing.tariffs.per_byte import ByteRate
from pricing.tariffs.per_row import RowRate
from pricing.tariffs.tiered import TierRate
from pricing.tariffs.x402_passthrough import PurchaseRate
from pricing.usage import PriceList

log = logging.getLogger(__name__)

HeaderList = tuple[tuple[bytes, bytes], ...]

# What an agent's request may always bring to an upstream: negotiation, representation, conditions, tracing. Everything
# else needs the publisher's allow-list ("*" for all but credentials).
STANDARD_PASSTHROUGH = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control content-disposition content-encoding"
    b" content-language content-length content-location content-md5 content-range content-type digest if-match"
    b" if-modified-since if-none-match if-range if-unmodified-since last-event-id pragma prefer range traceparent"
    b" tracestate user-agent want-digest x-requested-with".split()
)


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach an HTTP upstream: where, below which path, with which fields and query of the publisher's."""

    scheme: str
    host: str
    port: int
    base_path: bytes
    headers: HeaderList
    query: tuple[str, bytes] | None

    @property
    def own_names(self) -> frozenset[bytes]:
        """Return the lower-case names of the publisher's fields: a caller's fields of these names are dropped.

        With hyphens for underscores, which CGI-like servers do not tell apart.
        """
        return frozenset(name.lower().replace(b"_", b"-") for name, _ in self.headers)


@dataclass(frozen=True, slots=True)
class AssetPrice:
    """A publisher's prices in one asset and the ledger account that earns them; `rows` is what queries cost, `metered`
    what calls do whose price is known afterwards, `bought` what they do that the gateway pays an upstream for.

    `onchain` says whether payments in it are taken on its chain; an offer of one is good for `expiry_seconds`.
    """

    asset: Asset
    prices: PriceList
    prepaid: bool
    account_id: int
    max_per_minute: int | None
    onchain: bool = False
    expiry_seconds: int = 300
    rows: RowRate = field(default_factory=lambda: RowRate(0))
    metered: UsageRate | ByteRate | None = None
    bought: PurchaseRate | None = None
    tiers: TierRate | None = None
    """What calls cost by the caller's month; then `prices` has the dearest as the price of a call."""

    balances: BalanceRule | None = None


@dataclass(frozen=True, slots=True)
class Publisher:
    """One active publisher, immutable: a change makes a new object."""

    id: UUID
    slug: str
    name: str
    category: str
    integration_type: str | None
    billing_model: str
    default_deny: bool
    passthrough: frozenset[bytes]
    passthrough_all: bool
    content_type: bytes
    endpoints: EndpointTable
    prices: tuple[AssetPrice, ...]
    route: Route | None
    route_names: frozenset[bytes] = field(default_factory=frozenset[bytes])
    authentication: Authentication | None = None
    not_served: str | None = None
    delivery: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    websocket: bool = False
    wallet_address: str = ""
    wallet_network: str = ""
    onchain: OnchainPolicy = field(default_factory=OnchainPolicy)
    sale: Sale | None = None
    """What a database publisher sells queries to; None for every other kind."""

    mcp: bool = False
    """Whether its server speaks MCP: then `route` leads to the very endpoint."""

    watch: Watch = field(default_factory=Watch)
    """Where its answers say what they cost."""

    user_oauth: UserOauth | None = None
    """Whose tokens its calls carry, where it is called in its callers' names."""
    prices_by_method: bool = field(init=False)  # whether what a call costs or may do depends on its method

    def __post_init__(self) -> None:
        """Derive what every call asks."""
        by_method = any(price.prices.per_method for price in self.prices)
        object.__setattr__(self, "prices_by_method", by_method or bool(self.endpoints))

    @property
    def relays(self) -> bool:
        """Return whether its server sells by x402 itself: payments go through, and what nobody buys costs nothing."""
        return self.billing_model == "x402_passthrough"

    @property
    def metered(self) -> bool:
        """Return whether what a call costs may be known after it only."""
        return any(price.metered is not None for price in self.prices)


@dataclass(frozen=True, slots=True)
class PublisherRow:
    """What the database says of a publisher; `pricing` has one object per accepted asset, primary first."""

    id: UUID
    slug: str
    name: str
    category: str
    active: bool
    wallet_address: str
    wallet_network_id: str
    document: dict[str, Any]
    credentials: bytes | None
    pricing: list[dict[str, Any]]
    sale: dict[str, Any] | None
    organization_id: UUID


_COLUMNS = """
    SELECT p.id, p.slug, p.name, p.category, p.is_active AND NOT p.suspended AND p.deleted_at IS NULL AS active,
           p.wallet_address, p.wallet_network_id, p.document, p.credentials,
           coalesce((
               SELECT jsonb_agg(jsonb_build_object(
                          'asset_id', r.asset_id, 'account', ledger.earnings_account(p.id, a.ledger_asset_id),
                          'model', r.pricing_model,
                          'per_call', r.price_per_call::text, 'min', r.min_charge::text, 'max', r.max_charge::text,
                          'prepaid', r.prepaid_enabled, 'max_per_minute', r.max_queries_per_minute,
                          'per_1000_rows', r.base_price_per_1000_rows::text, 'markup', r.markup_multiplier::text,
                          'per_execution', r.price_per_execution::text,
                          'onchain', r.onchain_enabled, 'expiry_minutes', r.payment_expiry_minutes,
                          'least_balance', r.minimum_balance::text, 'low_balance', r.low_balance_threshold::text,
                          'per_method', jsonb_strip_nulls(jsonb_build_object(
                              'GET', r.price_per_get::text, 'POST', r.price_per_post::text,
                              'PUT', r.price_per_put::text, 'PATCH', r.price_per_patch::text,
                              'DELETE', r.price_per_delete::text)))
                      ORDER BY r.asset_id <> p.primary_asset_id, r.asset_id)
                 FROM catalog.pricing r JOIN catalog.asset a ON a.id = r.asset_id
                WHERE r.publisher_id = p.id), '[]'::jsonb) AS pricing,
           (SELECT jsonb_build_object('tables', s.tables, 'findings', s.findings)
              FROM catalog.sale s WHERE s.publisher_id = p.id) AS sale,
           p.organization_id
      FROM catalog.publisher p
"""
LOAD_ALL = Statement(_COLUMNS + "WHERE p.deleted_at IS NULL AND p.is_active AND NOT p.suspended", PublisherRow)
LOAD_ONE = Statement(_COLUMNS + "WHERE p.id = $1", PublisherRow)


class Catalog:
    """The snapshot. One per worker; reads are plain dictionary look-ups.

    `unseal(sealed, context)` opens stored credentials; it is passed in because the box belongs to an upper step.
    """

    def __init__(self, database: Database, unseal: Callable[[bytes, bytes], bytes]) -> None:
        self._database = database
        self._unseal = unseal
        self._by_slug: dict[str, Publisher] = {}
        self._slug_of: dict[UUID, str] = {}
        self._reads = 0  # numbers every look at the database
        self._loaded = 0  # the look by which everything was last put in place,
        self._placed: dict[UUID, int] = {}  # and later ones, by publisher
        self.assets: dict[UUID, Asset] = {}
        self.listening = False
        self.reloads = 0

    async def load(self) -> None:
        """Read everything. Raises what the database raises."""
        look = self._look()
        async with self._database.acquire() as connection:
            self.assets = {asset.id: asset for asset in await LIST_ASSETS.all(connection)}
            rows = await LOAD_ALL.all(connection)
        compiled = {row.id: self._compiled(row) for row in rows}
        for publisher_id in self._slug_of.keys() | compiled.keys():
            self._place(look, publisher_id, compiled.get(publisher_id))
        self._loaded = max(self._loaded, look)
        self._placed = {one: placed for one, placed in self._placed.items() if placed > self._loaded}
        self.reloads += 1

    async def refresh(self, publisher_id: UUID, connection: Connection | None = None) -> None:
        """Read one publisher again and put it in place, or take it out when it is gone or inactive."""
        look = self._look()
        if connection is None:
            async with self._database.acquire() as leased:
                row = await LOAD_ONE.first(leased, publisher_id)
        else:
            row = await LOAD_ONE.first(connection, publisher_id)
        self._place(look, publisher_id, self._compiled(row) if row is not None and row.active else None)
        self.reloads += 1

    def _look(self) -> int:
        """Number a look at the database that begins now."""
        self._reads += 1
        return self._reads

    def _place(self, look: int, publisher_id: UUID, publisher: Publisher | None) -> None:
        """Put a publisher in place, or take it out, unless a look that began later already has.

        Answers overtake each other: the listener may have looked before a change, and hear after it was put in place.
        """
        if self._placed.get(publisher_id, self._loaded) > look:
            return
        self._placed[publisher_id] = look
        slug = self._slug_of.pop(publisher_id, None)
        if slug is not None and self._by_slug[slug].id == publisher_id:
            del self._by_slug[slug]
        if publisher is not None:
            self._by_slug[publisher.slug] = publisher
            self._slug_of[publisher.id] = publisher.slug

    def find(self, slug: str) -> Publisher | None:
        """Return the active publisher of a slug."""
        return self._by_slug.get(slug)

    def slug_of(self, publisher_id: UUID) -> str | None:
        """Return the slug of an active publisher."""
        return self._slug_of.get(publisher_id)

    def sales(self) -> dict[UUID, str]:
        """Return the version of every database publisher's sale, by publisher."""
        return {one.id: one.sale.version for one in self._by_slug.values() if one.sale is not None}

    @property
    def default_asset(self) -> Asset:
        """Return the asset of prepaid dollars."""
        return next(asset for asset in self.assets.values() if asset.is_default)

    @property
    def publishers(self) -> Iterable[Publisher]:
        """Return the active publishers, by slug."""
        return [self._by_slug[slug] for slug in sorted(self._by_slug)]

    @property
    def size(self) -> int:
        """Return how many publishers are in the snapshot."""
        return len(self._by_slug)

    def _compiled(self, row: PublisherRow) -> Publisher | None:
        """Compile a row; one that cannot be read is left out and logged, so that it cannot stop the others."""
        try:
            return compile_publisher(row, self.assets, self._unseal)
        except (ValueError, KeyError, TypeError, LookupError) as error:
            log.error("publisher %s cannot be served: %s: %s", row.slug, type(error).__name__, error)
            return None


def compile_publisher(
    row: PublisherRow, assets: Mapping[UUID, Asset], unseal: Callable[[bytes, bytes], bytes]
) -> Publisher:
    """Turn a stored publisher into the form that the hot path reads."""
    document = row.document
    fee_ppm = percent_to_ppm(parse_ratio(str(document.get("gateway_fee_percent") or "0"), places=4, maximum=100))
    priced = document_states_price(document) or any(map(entry_states_price, row.pricing))
    prices = tuple(_asset_price(entry, assets, fee_ppm, document, priced=priced) for entry in row.pricing)
    secrets: dict[str, Any] = orjson.loads(unseal(row.credentials, row.id.bytes)) if row.credentials else {}
    listed: list[Any] = document.get("allowed_passthrough_headers") or []
    allowed = [str(name).lower() for name in listed]
    mcp = row.category == "integration" and document.get("integration_type") == "mcp"
    if mcp:
        prices = tuple(_of_tools(price, entry) for price, entry in zip(prices, row.pricing, strict=True))
    route = route_of(document, secrets, "mcp_endpoint" if mcp else "api_url")
    delivery = compile_delivery(document)
    sale: Sale | None = None
    if row.sale is not None and is_postgres(row.category, secrets.get("database_config")):
        sale = compile_sale(secrets["database_config"], row.sale["tables"], delivery)
    return Publisher(
        id=row.id,
        slug=row.slug,
        name=row.name,
        category=row.category,
        integration_type=document.get("integration_type"),
        billing_model=document.get("billing_model") or "prepaid_credits",
        default_deny=document.get("undocumented_endpoint_policy") == "default_deny",
        passthrough=STANDARD_PASSTHROUGH | {name.encode() for name in allowed},
        passthrough_all="*" in allowed,
        content_type=str(document.get("request_content_type") or "application/json").encode(),
        endpoints=EndpointTable(_endpoints(document, prices)),
        prices=prices,
        route=route,
        route_names=route.own_names if route else frozenset(),
        authentication=compile_authentication(document, secrets) if route else None,
        not_served=not_served(row.category, document, row.pricing, row.sale if sale else None),
        delivery=delivery,
        websocket=bool(document.get("websocket_enabled")) and not mcp,
        wallet_address=row.wallet_address,
        wallet_network=row.wallet_network_id,
        onchain=compile_settlement(document),
        sale=sale,
        mcp=mcp,
        watch=compile_watch(document),
        user_oauth=compile_user_oauth(document, row.organization_id, route.host if route else ""),
    )


def _asset_price(
    entry: Mapping[str, Any], assets: Mapping[UUID, Asset], fee_ppm: int, document: Mapping[str, Any], *, priced: bool
) -> AssetPrice:
    def amount(value: str | None) -> int | None:
        return None if value is None else int(value)

    asset, markup = assets[UUID(entry["asset_id"])], Fraction(entry["markup"])
    least, most = int(entry["min"]), amount(entry["max"])
    tiers = compile_tiers(document, entry["model"], asset, least, most)
    prices = PriceList(
        per_call=amount(entry["per_call"]) if tiers is None else tiers.dearest,
        per_method=tuple((method, int(price)) for method, price in entry["per_method"].items()),
        minimum=least,
        maximum=most,
        fee_ppm=fee_ppm,
        priced_elsewhere=priced,
    )
    return AssetPrice(
        asset,
        prices,
        entry["prepaid"],
        entry["account"],
        entry["max_per_minute"],
        entry["onchain"],
        entry["expiry_minutes"] * 60,
        RowRate(int(entry["per_1000_rows"]), markup, prices.minimum, prices.maximum, fee_ppm),
        compile_rate(document, entry["model"], asset, prices, markup),
        compile_purchase(document, asset, prices, markup),
        tiers,
        compile_balances(entry),
    )


def _of_tools(price: AssetPrice, entry: Mapping[str, Any]) -> AssetPrice:
    """Return an MCP publisher's prices: `price_per_execution`, if there is one, is what calling any tool costs."""
    executed = entry["per_execution"]
    if executed is None:
        return price
    return replace(price, prices=replace(price.prices, per_call=int(executed), per_method=()))


def _endpoints(document: Mapping[str, Any], prices: Sequence[AssetPrice]) -> list[Endpoint]:
    definitions: Sequence[Mapping[str, Any]] = document.get("endpoints") or []
    decimals = prices[0].asset.decimals if prices else 6
    compiled: list[Endpoint] = []
    for definition in definitions:
        text = definition.get("price")
        try:
            price = None if text in (None, "") else parse_amount(str(text), decimals)
        except MoneyError as error:
            raise ValueError(f"endpoint {definition['path']}: price {error}") from None
        compiled.append(
            Endpoint(
                method=definition["method"],
                path=definition["path"],
                price=price,
                is_protected=bool(definition.get("is_protected")),
                protection_reason=definition.get("protection_reason"),
                settlement=definition.get("x402_settlement"),
                required_headers=tuple(definition.get("required_headers") or ()),
                required_params=tuple(
                    item["name"] for item in definition.get("query_params") or () if item.get("required")
                ),
                refunds=refunds_of(definition, document),
            )
        )
    return compiled


def route_of(document: Mapping[str, Any], secrets: Mapping[str, Any], field: str = "api_url") -> Route | None:
    """Return how a publisher's server is reached, None without an address. Raises ValueError when it is no http(s) URL.

    An `api_url` is what paths of calls are put behind; an `mcp_endpoint` is where everything goes, query included.
    """
    if not document.get(field):
        return None
    url = urlsplit(str(document[field]))
    if url.hostname is None or url.scheme not in ("http", "https"):
        raise ValueError(f"{field} is not an http(s) URL")
    path = url.path.rstrip("/") if field == "api_url" else url.path + (f"?{url.query}" if url.query else "")
    headers = [*_pairs(document.get("upstream_headers")), *_pairs(secrets.get("api_headers"))]
    query: tuple[str, bytes] | None = None
    key = None if trades_key(document) else secrets.get("upstream_api_key")
    if key and document.get("api_key_query_param"):
        query = (str(document["api_key_query_param"]), str(key).encode())
    elif key:
        name = str(document.get("api_key_header") or "Authorization")
        value = f"Bearer {key}" if name.lower() == "authorization" and " " not in str(key) else str(key)
        headers.append((name.encode(), value.encode()))
    return Route(
        scheme=url.scheme,
        host=url.hostname,
        port=url.port or (443 if url.scheme == "https" else 80),
        base_path=path.encode(),
        headers=tuple(headers),
        query=query,
    )


def _pairs(value: object) -> list[tuple[bytes, bytes]]:
    if not isinstance(value, dict):
        return []
    return [(str(name).encode(), str(text).encode()) for name, text in cast("dict[str, Any]", value).items()]
