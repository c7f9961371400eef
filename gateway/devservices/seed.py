"""What a fresh development gateway begins with: a demo agent with money, and publishers that sell the demo upstream.

Idempotent: a second start finds everything by name and slug, makes nothing twice, and follows the upstream to another
port. A key is shown once, so the caller keeps it (`known`, from dev.json); one that works no more is replaced.
What does not live here: the facts that are sold (demo_data.py) and the server that serves them (upstreams.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from gateway.catalog.assets import LIST_ASSETS, store_assets
from gateway.catalog.publishers import PublisherDesk
from gateway.catalog.records import FIND_ANY, all_assets
from gateway.catalog.requests import CreatePublisherRequest, UpdatePublisherRequest
from gateway.catalog.urls import UrlPolicy
from gateway.database.pool import Connection, Database, connect
from gateway.devservices import chain_genesis
from gateway.identity.accounts import FIND_AGENT, add_key, load, register_agent, wallet_address
from gateway.identity.organizations import default_of
from gateway.identity.principals import FIND_KEY, KEY
from gateway.ledger.wallets import grant, open_wallet
from gateway.payments.evm.wallet_movements import Movement, book
from gateway.settings import Settings
from gateway.upstreams.credentials import CredentialBox
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres.onboarding import DatabaseInspector

AGENT, OWNER = "demo-agent", "demo-publisher"
FUNDS = 5_000_000  # $5.00
WALLET = "0x000000000000000000000000000000000000dEaD"  # where nobody's money is
EXAMPLE = "/publishers/market-data/v1/quotes/ACME"
MCP = "/publishers/market-tools/mcp"

DEMO: tuple[dict[str, Any], ...] = (
    {
        "slug": "market-data",
        "name": "Demo Market Data",
        "description": "Daily stock market prices of ten invented companies: quotes, price history, and a live stream "
        "of ticks. Prices are generated and the same for ever, so results can be compared.",
        "capabilities": ["stock quotes", "price history", "streaming market data", "finance"],
        "use_cases": ["look up a share price", "chart a stock", "backtest a trading strategy"],
        "categories": ["finance", "data"],
        "price_per_call": "0.001",
        "endpoints": [
            {"method": "GET", "path": "/v1/quotes", "description": "The symbols that there are", "price": "0"},
            {
                "method": "GET",
                "path": "/v1/quotes/{symbol}",
                "description": "One day's open, high, low, close and volume",
                "query_params": [
                    {"name": "day", "description": "ISO day; default today (UTC)", "example": "2026-01-30"}
                ],
            },
            {
                "method": "GET",
                "path": "/v1/quotes/{symbol}/history",
                "description": "Every day's prices between two days",
                "price": "0.01",
                "query_params": [{"name": "from"}, {"name": "to"}],
            },
            {
                "method": "GET",
                "path": "/v1/stream",
                "description": "Ticks as server-sent events",
                "price": "0.02",
                "query_params": [
                    {"name": "events", "param_type": "integer"},
                    {"name": "interval_ms", "param_type": "integer"},
                ],
            },
        ],
    },
    {
        "slug": "unicode",
        "name": "Demo Unicode Characters",
        "description": "Facts about every Unicode character: name, category, numeric value, encodings. Search "
        "characters by the words of their name, or download the whole list of names.",
        "capabilities": ["character lookup", "search unicode names", "text encoding", "emoji"],
        "use_cases": ["find the code point of a symbol", "explain a strange character", "find an emoji by name"],
        "categories": ["reference", "text"],
        "price_per_call": "0.0005",
        "undocumented_endpoint_policy": "default_deny",
        "endpoints": [
            {"method": "GET", "path": "/v1/characters/{character}", "description": "U+20AC, 20ac or the character"},
            {
                "method": "GET",
                "path": "/v1/search",
                "description": "Characters whose name holds every word",
                "price": "0.002",
                "query_params": [{"name": "q", "required": True, "example": "snowman"}],
            },
            {
                "method": "GET",
                "path": "/v1/files/unicode-names.txt",
                "description": "All names, about 1 MB; ranges are served",
                "price": "0.05",
            },
        ],
    },
    {
        "slug": "chat",
        "name": "Demo Chat",
        "description": "A chat model that repeats what it is told, behind the OpenAI API: for trying an SDK, streams, "
        "and a price by tokens. A word is a token; the most that an answer may cost is held while it is made.",
        "capabilities": ["chat completions", "openai compatible", "streaming tokens"],
        "use_cases": ["try an openai client", "see what tokens cost"],
        "categories": ["ai", "testing"],
        "billing_model": "pay_per_use",
        "gateway_fee_percent": "10",
        "upstream_usage_prices": {"usage.prompt_tokens": "100", "usage.completion_tokens": "300"},
        "reserve_max_charge": "0.05",
        "unresolved_fallback_charge": "0.01",
        "undocumented_endpoint_policy": "default_deny",
        "endpoints": [
            {"method": "GET", "path": "/v1/models", "description": "The models that there are", "price": "0"},
            {"method": "POST", "path": "/v1/chat/completions", "description": "As in the OpenAI API; stream or not"},
        ],
    },
    {
        "slug": "market-tools",
        "name": "Demo Market Tools",
        "description": "An MCP server with tools over the demo data: reports on stock prices, and a search for Unicode "
        "characters. For trying MCP clients, and tools that have different prices.",
        "capabilities": ["mcp tools", "stock price reports", "search unicode names"],
        "use_cases": ["try an mcp client", "see what tools cost"],
        "categories": ["finance", "testing"],
        "integration_type": "mcp",
        "price_per_call": "0.001",
        "endpoints": [
            {"method": "POST", "path": "/list_symbols", "description": "The symbols that there are", "price": "0"},
            {"method": "POST", "path": "/price_report", "description": "Prices between two days", "price": "0.01"},
        ],
    },
    {
        "slug": "echo",
        "name": "Demo Echo",
        "description": "Shows exactly what reaches a publisher's server: method, path, headers and a digest of the "
        "body. For trying the gateway: your API key is not among what arrives, the publisher's credential is.",
        "capabilities": ["echo requests", "debug headers", "test uploads"],
        "use_cases": ["see what an upstream receives", "test a client"],
        "categories": ["testing"],
        "price_per_call": "0.0001",
        "price_per_post": "0.0002",
        "api_headers": {"X-Demo-Credential": "kept-by-the-gateway"},
        "endpoints": [
            {"method": "GET", "path": "/echo", "description": "What arrived"},
            {"method": "POST", "path": "/echo", "description": "What arrived, with size and digest of the body"},
            {
                "method": "GET",
                "path": "/health",
                "is_protected": True,
                "protection_reason": "The upstream's own health is nobody's business.",
            },
        ],
    },
)


@dataclass(frozen=True, slots=True)
class _Party:
    """A demo account with a key that works."""

    account_id: UUID
    organization_id: UUID
    key: str


async def seed(settings: Settings, upstream_url: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put assets, demo accounts and demo publishers in, and return what dev.json shows of them."""
    database = Database(settings.database)
    await database.start()
    try:
        async with database.transaction() as connection:
            await store_assets(connection)
            assets = await all_assets(connection)
        asset_id = next(iter(assets))  # the default one comes first
        kept = known or {}
        agent = await _party(database, asset_id, AGENT, kept.get("agent_api_key"))
        owner = await _party(database, asset_id, OWNER, kept.get("publisher_owner_api_key"))
        async with database.transaction() as connection:
            wallet = await open_wallet(connection, agent.account_id, asset_id, wallet_address(agent.account_id))
            await grant(connection, wallet.id, source="admin_grant", reference="seed", amount=FUNDS, description="demo")
        await _publish(database, settings, owner, upstream_url.rstrip("/"))
    finally:
        await database.stop()
    return {
        "agent_api_key": agent.key,
        "agent_id": str(agent.account_id),
        "agent_name": AGENT,
        "publisher_owner_api_key": owner.key,
        "organization_id": str(owner.organization_id),
        "publishers": [str(demo["slug"]) for demo in DEMO],
        "example": EXAMPLE,
        "mcp": MCP,
    }


async def book_buyers_funds(settings: Settings, network: str) -> None:
    """Book what the buying wallet was given when the local chain was made."""
    connection = await connect(settings.database)
    try:
        for asset in await LIST_ASSETS.all(connection):
            if (asset.network_id, asset.symbol) == (network, "USDC"):
                given = Movement(treasury=0, outside=chain_genesis.FUNDS)
                await book(connection, asset.ledger_asset_id, network, "USDC", None, given, incoming=True)
    finally:
        await connection.close()


async def _party(database: Database, asset_id: UUID, name: str, key: object) -> _Party:
    async with database.transaction() as connection:
        account_id = await FIND_AGENT.first(connection, name)
        if account_id is not None:
            return await _existing(connection, account_id, str(key or ""))
    made = await register_agent(database, asset_id, name)
    return _Party(made.account.id, made.organization_id, made.key.text)


async def _existing(connection: Connection, account_id: UUID, key: str) -> _Party:
    account, organization = await load(connection, account_id), await default_of(connection, account_id)
    if organization is None:
        raise RuntimeError(f"the demo account {account.name} has lost its organization")
    if not await _works(connection, account_id, key):
        _, fresh = await add_key(connection, name="agent", organization_id=organization.id, account_id=account_id)
        key = fresh.text
    return _Party(account_id, organization.id, key)


async def _works(connection: Connection, account_id: UUID, key: str) -> bool:
    match = KEY.fullmatch(key)
    record = await FIND_KEY.first(connection, match[1]) if match else None
    if match is None or record is None or record.account_id != account_id:
        return False
    return record.secret_hash == hashlib.sha256(match[2].encode()).digest()


def publisher_desk(settings: Settings, database: Database) -> PublisherDesk:
    """Return where publishers are written."""
    allowed = settings.proxy.allow_addresses
    guard = EgressGuard([ip_network(network) for network in allowed])
    box = CredentialBox.from_setting(settings.secrets.keys)
    return PublisherDesk(database, box, UrlPolicy(guard, allowed), settings, DatabaseInspector(guard))


async def _publish(database: Database, settings: Settings, owner: _Party, upstream_url: str) -> None:
    desk = publisher_desk(settings, database)
    for demo in DEMO:
        place = _place(demo, upstream_url)
        async with database.acquire() as connection:
            record = await FIND_ANY.first(connection, demo["slug"])
        if record is None:
            order = {
                "integration_type": "api",
                **demo,
                **place,
                "publisher_category": "integration",
                "wallet_address": WALLET,
                "wallet_network_id": "eip155:84532",
            }
            request = CreatePublisherRequest.model_validate(order)
            await desk.create(owner.organization_id, owner.account_id, request)
        elif record.organization_id == owner.organization_id and not place.items() <= record.document.items():
            await desk.update(record.organization_id, record.id, UpdatePublisherRequest.model_validate(place))


def _place(demo: Mapping[str, Any], upstream_url: str) -> dict[str, str]:
    """Return the field that leads to a demo publisher's server."""
    return (
        {"mcp_endpoint": f"{upstream_url}/mcp"} if demo.get("integration_type") == "mcp" else {"api_url": upstream_url}
    )
