"""Sections of the running gateway: where it listens, what it keeps within bounds, how it moves money."""

from __future__ import annotations

import re
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gateway.eip55 import is_checksummed
from gateway.settings.base import Bytes, Seconds, Section


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of CIDRs. Raises ValueError naming the wrong one."""
    for value in values:
        try:
            ip_network(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is not a network such as 127.0.0.0/8") from None
    return tuple(value.strip() for value in values)


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of origins. Raises ValueError naming the wrong one."""
    for value in values:
        if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", value.strip()):
            raise ValueError(f"{value!r} is not an origin such as https://app.example.com")
    return tuple(value.strip() for value in values)


Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]

Origins = Annotated[tuple[str, ...], AfterValidator(_origins)]


class ServerSettings(Section):
    """Where and how to listen."""

    host: str = "127.0.0.1"
    port: int = Field(default=8402, ge=0, le=65_535)
    operations_host: str = Field(default="127.0.0.1", description="Address of the operators' listener")
    operations_port: int = Field(
        default=0, ge=0, le=65_535, description="Port for metrics and operators alone; 0: on `port`, as all else"
    )
    workers: int = Field(default=1, ge=1, le=256)
    kind: Literal["tollway", "hypercorn"] = "tollway"
    public_url: str = Field(default="", description="Base URL that callers see; default http://host:port")
    data: Path = Field(default=Path(".tollway"), description="Development data, and where the CLI looks for dev.json")
    # Longer than the idle timeout of common load balancers (60 s): they close first and never meet a closing door.
    keep_alive: Seconds = Field(
        default=75.0, description="How long a connection may be idle, or take to send the head of a request"
    )
    drain: Seconds = Field(default=30.0, description="How long calls in flight may finish after SIGTERM")
    # Clients that drop connections after 5 s without a call, as httpx does, then never lose one to a restart.
    farewell: float = Field(
        default=5.0,
        ge=0,
        le=3_600,
        description="How long after SIGTERM it still serves, ending connections; at most half of `drain`",
    )
    hang: float = Field(
        default=20.0,
        ge=0,
        le=86_400,
        description="After how long without its event loop a worker is replaced; 0: never",
    )
    tls_certificate: str = Field(default="", description="PEM file: own certificate, then its chain; empty: no TLS")
    tls_key: str = Field(default="", description="PEM file of the certificate's private key, without a password")
    trusted_proxies: Networks = Field(default=(), description="CIDRs whose X-Forwarded-* are believed; default none")
    return_origins: Origins = Field(
        default=(), description="Sites that browsers may go back to from an OAuth provider, beside `public_url`"
    )

    @field_validator("public_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("must start with http:// or https://")
        parts = urlsplit(value)
        if value and (not parts.hostname or parts.query or parts.fragment or parts.username is not None):
            raise ValueError("must be a base URL such as https://api.example.com, without login, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _two_ports(self) -> ServerSettings:
        if self.operations_port and self.operations_port == self.port:
            raise ValueError("operations_port is the same as port: choose another")
        return self

    @model_validator(mode="after")
    def _certificate_and_key(self) -> ServerSettings:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together: set both or neither")
        if self.tls_certificate and self.public_url.startswith("http://"):
            raise ValueError("public_url is http://, but tls_certificate is set: callers would be sent past TLS")
        return self


class DatabaseSettings(Section):
    """The ledger's and catalog's PostgreSQL (15 or newer)."""

    url: str = "postgresql://tollway@127.0.0.1:5432/tollway"
    direct_url: str = Field(
        default="", description="PostgreSQL itself, where `url` is a pooler in transaction mode; empty: `url` is it"
    )
    pool: int = Field(default=8, ge=2, le=200, description="Connections per worker beside the three that are held")
    command_timeout: Seconds = 30.0
    connect_timeout: Seconds = 10.0

    @field_validator("url", "direct_url")
    @classmethod
    def _postgres_url(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "direct_url":
            return value
        if urlsplit(value).scheme not in ("postgresql", "postgres"):
            raise ValueError("must be postgresql://user:password@host:port/database")
        return value

    @property
    def pooled(self) -> bool:
        """Return whether `url` is a pooler, which gives a server's session for one transaction only."""
        return bool(self.direct_url)

    @property
    def doubt(self) -> float:
        """Return for how many seconds a statement that was given up may still be carried out.

        Behind a pooler it may first stand in line there: docs/operations.md bounds that by `command_timeout` as well.
        """
        return self.command_timeout * (2 if self.pooled else 1)

    @property
    def direct(self) -> DatabaseSettings:
        """Return the settings for what needs a session of its own: LISTEN, locks that are held, migrations."""
        return self.model_copy(update={"url": self.direct_url, "direct_url": ""}) if self.pooled else self


class RedisSettings(Section):
    """Valkey or Redis (7 or newer), for limits only: no money and no state that must survive."""

    url: str = "redis://127.0.0.1:6379/0"
    connect_timeout: Seconds = 2.0
    command_timeout: Seconds = 0.1

    @field_validator("url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"):
            raise ValueError("must be redis://, rediss:// or unix://; of a cluster redis+cluster://host:port,host:port")
        return value

    @property
    def clustered(self) -> bool:
        """Return whether `url` lists nodes of a cluster."""
        return "+cluster://" in self.url


class LimitSettings(Section):
    """Requests per minute. `when_unavailable` decides while Valkey is away (docs/operations.md)."""

    per_key: int = Field(default=6_000, ge=1, description="Calls per minute and API key")
    per_address: int = Field(default=600, ge=1, description="Unauthenticated requests per minute and client address")
    registrations: int = Field(default=30, ge=1, description="New agents per hour and client address")
    guesses: int = Field(default=10, ge=1, description="Failed keys or recovery codes per minute and client address")
    logins: int = Field(default=10, ge=1, description="Tries at a password per 15 minutes, account and client address")
    logins_per_account: int = Field(default=100, ge=1, description="The same per hour, from all addresses together")
    logins_per_address: int = Field(default=100, ge=1, description="Per 15 minutes and address, at all accounts")
    letters: int = Field(default=5, ge=1, description="Letters per hour that somebody can have sent to one mailbox")
    publishers: int = Field(default=500, ge=1, description="Publishers that one organization may ever create")
    invitations: int = Field(default=50, ge=1, description="Invitations per hour that one account can have mailed")
    connection_tests: int = Field(default=10, ge=1, description="Connection tests per minute and organization")
    lookups: int = Field(default=600, ge=1, description="Balances that a first-party service looks up per minute")
    estimates: int = Field(default=30, ge=1, description="Free looks at the price of a query per minute and caller")
    when_unavailable: Literal["local", "allow", "deny"] = "local"


class ProxySettings(Section):
    """Bounds and timeouts of the paid path. A publisher may choose its own, up to the `*_max` beside each default."""

    calls: int = Field(default=20_000, ge=1, description="At once, per worker; what comes above is answered 503")
    wait: Seconds = Field(
        default=0.25, description="How long calls may wait for the gateway itself before new ones are answered 503"
    )
    max_target: Bytes = 8_192
    max_header_bytes: Bytes = 65_536
    connect_timeout: Seconds = 5.0
    connect_timeout_max: Seconds = 30.0
    first_byte_timeout: Seconds = 60.0
    first_byte_timeout_max: Seconds = 600.0
    idle_timeout: Seconds = 60.0
    idle_timeout_max: Seconds = 600.0
    total_timeout: Seconds = 3_600.0
    total_timeout_max: Seconds = 3_600.0
    body_timeout: Seconds = Field(
        default=30.0, description="How far a caller may fall behind the least rate of its request body; then 408"
    )
    upload_min_rate: int = Field(
        default=500, ge=0, description="Bytes a second, the least rate of a request body; 0: any byte will do"
    )
    upload_timeout: Seconds = Field(default=900.0, description="How long a request body may take in all; then 408")
    client_timeout: Seconds = Field(
        default=30.0, description="How long a caller may take nothing of an answer; then it is cut off, and has paid"
    )
    cors: bool = Field(default=True, description="Whether pages of other sites may call, with keys and never cookies")
    connections_per_upstream: int = Field(default=256, ge=1, description="Per worker and publisher's server")
    connections_per_upstream_max: int = Field(default=1_024, ge=1)
    connect_retries: int = Field(default=0, ge=0, description="New tries of a connection that did not come about")
    connect_retries_max: int = Field(default=3, ge=0, le=10)
    idle_connections_per_upstream: int = Field(default=256, ge=0)
    allow_addresses: Networks = Field(default=(), description="CIDRs exempt from the egress guard; development only")

    @model_validator(mode="after")
    def _defaults_fit(self) -> ProxySettings:
        names = (
            "connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "connections_per_upstream",
            "connect_retries",
        )  # fmt: skip
        for name in names:
            default, most = getattr(self, name), getattr(self, f"{name}_max")
            if default > most:
                raise ValueError(f"{name} is {default:g}, more than {name}_max ({most:g}); raise that one as well")
        return self


class QuerySettings(Section):
    """Bounds of one query at a publisher's database (docs/sql.md), and what a publisher's database is asked for."""

    rows: int = Field(default=10_000, ge=1, le=1_000_000, description="The most rows of an answer")
    size: Bytes = Field(default=16_777_216, description="The most bytes of an answer's rows")
    row_size: Bytes = Field(default=1_048_576, description="The widest row")
    seconds: Seconds = Field(default=8.0, description="From the plan to the last row, the caller's reading included")
    statement_seconds: Seconds = Field(default=5.0, description="The server's own limit for each fetch")
    plan_seconds: Seconds = 1.0
    connections: int = Field(default=4, ge=1, le=100, description="Per worker and publisher's database")
    buffer: Bytes = Field(default=262_144, description="A longer answer is streamed, its cost at its end")
    refresh: Seconds = Field(default=300.0, description="How often what is on sale is read again")


class McpSettings(Section):
    """Bounds of one message to and from a publisher's MCP server (docs/mcp.md)."""

    max_message: Bytes = Field(default=1_048_576, description="The largest message of a caller, such as a tool's call")
    max_answer: Bytes = Field(default=8_388_608, description="The largest message of a publisher's server")


class BreakerSettings(Section):
    """When a publisher's server is left alone for a while after failures; per worker (upstreams/breaker.py)."""

    failures: int = Field(default=5, ge=0, description="Calls in a row without an answer that open it; 0: never")
    percent: int = Field(default=50, ge=1, le=100, description="Share of failed connections in a window that opens it")
    calls: int = Field(default=20, ge=1, description="Calls in a window before their share counts")
    window: Seconds = 10.0
    wait: Seconds = Field(default=5.0, description="How long it stays open at first; doubled after each failed try")
    wait_max: Seconds = 60.0


class WebSocketSettings(Section):
    """Connections to publishers that offer WebSockets. A message is whole in memory while it is passed on."""

    max_message: Bytes = Field(default=1_048_576, description="Of either side, in bytes, unfinished ones included")
    lifetime: Seconds = Field(default=7_200.0, description="How long one paid connection may last")
    idle_timeout: Seconds = Field(default=600.0, description="Without a message either way; pings do not count")
    ping_interval: Seconds = Field(default=20.0, description="Between pings to a side that is silent")
    close_timeout: Seconds = Field(default=5.0, description="How long the closing handshake may take")
    connections: int = Field(default=2_000, ge=0, description="At once, per worker; 0 refuses all")
    per_key: int = Field(default=100, ge=1, description="At once, per worker and API key or address without one")


def _tiers(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of bonuses. Raises ValueError naming the wrong one."""
    for value in values:
        if value.strip() and not re.fullmatch(r"[0-9]{1,8}=(?:100|[0-9]{1,2}(?:\.[0-9]{1,2})?)", value.strip()):
            raise ValueError(f"{value!r} is no bonus such as 10000=2.5, from 100 dollars on 2.5 percent")
    tiers = tuple(value.strip() for value in values if value.strip())
    starts = [int(tier.partition("=")[0]) for tier in tiers]
    if any(later <= earlier for earlier, later in pairwise(starts)):
        raise ValueError("the amounts must ascend, each one once")
    return tiers


class MoneySettings(Section):
    """Credits and fees. Amounts are atomic units of the default asset (USDC: 1,000,000 = $1)."""

    signup_bonus: int = Field(default=1_000_000, ge=0)
    payment_method_bonus: int = Field(default=5_000_000, ge=0)
    daily_claim: int = Field(default=100_000, ge=0)
    daily_claims_per_month: int = Field(default=10, ge=0)
    bonus_expiry_days: int = Field(default=90, ge=1)
    daily_expiry_days: int = Field(default=30, ge=1)
    referral_reward: int = Field(default=500_000, ge=0)
    refund_grace_days: int = Field(default=7, ge=1)
    minimum_deposit_cents: int = Field(default=500, ge=50, description="By card; Stripe takes no less than 50")
    maximum_deposit_cents: int = Field(default=1_000_000, ge=50, le=99_999_999, description="By card, at once")
    deposit_tiers: Annotated[tuple[str, ...], AfterValidator(_tiers)] = Field(
        default=("10000=2", "50000=5"), description="Bonuses of card deposits: from so many cents on, so many percent"
    )
    minimum_onchain_deposit: int = Field(default=100_000, ge=1, description="Its transaction costs gas")
    proof_every: Seconds = Field(
        default=86_400.0, description="How long after a full proof of the books the next one begins"
    )
    four_eyes_above: int = Field(
        default=10_000_000_000,
        ge=0,
        description="What an operator grants, refunds and corrects alone lately; more needs another operator; 0: never",
    )
    four_eyes_within: Seconds = Field(
        default=86_400.0, description="What lately is, and how long a request waits for its approval"
    )
    dead_after: Seconds = Field(
        default=15.0, description="A worker not heard of for so long is dead; its open exchanges are refunded"
    )


class IdempotencySettings(Section):
    """Stored answers for calls with an Idempotency-Key."""

    lifetime: Seconds = Field(default=86_400.0, description="How long a key lives")
    keep: Bytes = Field(default=1_048_576, description="The largest response body that is kept")


SettlementPolicy = Literal["settle_first", "before_response", "deferred"]
"""When the payment of a call is settled on its chain; billing/x402_per_request.py says what follows from each."""


class X402Settings(Section):
    """Calls that are paid on a chain. A publisher may choose another `settlement` and `exposure`."""

    settlement: SettlementPolicy = "before_response"
    exposure: int = Field(
        default=1_000_000, ge=0, description="deferred: the most of one payer's payments that may be unsettled"
    )
    wait: Seconds = Field(default=30.0, description="How long a caller is kept waiting for a settlement; then 503")
    gather: Seconds = Field(
        default=1.0,
        description="How long an answer may take to be whole; then its payment is settled first",
    )
    replay: Seconds = Field(
        default=3_600.0, description="How long a paid answer is kept for whoever presents the payment again"
    )


def _pauses(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of seconds. Raises ValueError naming the wrong one."""
    for value in values:
        if not re.fullmatch(r"[0-9]{1,7}(?:\.[0-9]{1,3})?", value.strip()):
            raise ValueError(f"{value!r} is no number of seconds")
    return tuple(value.strip() for value in values)


def _sellers(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of publishers and payees. Raises ValueError naming the wrong one."""
    for value in values:
        if not re.fullmatch(r"(?:\*|[a-z0-9][a-z0-9-]*)(?:=0x[0-9a-fA-F]{40})?", value.strip()):
            raise ValueError(f"{value!r} is neither a publisher's slug nor slug=0x and 40 hexadecimal digits")
        _, _, payee = value.strip().partition("=")
        if payee[2:] not in (payee[2:].lower(), payee[2:].upper()) and not is_checksummed(payee):
            raise ValueError(f"{value!r}: the EIP-55 checksum (the mixed case) is wrong; copy the address again")
    return tuple(value.strip() for value in values)


class BuyingSettings(Section):
    """What the gateway buys by x402 from publishers' servers, for callers with a balance (docs/pricing.md).

    It is paid from the wallet of TOLLWAY_CHAIN_BUYER_KEY. Amounts are atomic units of the default asset.
    """

    publishers: Annotated[tuple[str, ...], AfterValidator(_sellers)] = Field(
        default=(),
        description="Slugs that may be bought from: slug, or slug=0x… for another payee than its own; *: all",
    )
    most: int = Field(default=1_000_000, ge=1, description="The most that is paid for one call")
    exposure: int = Field(
        default=5_000_000, ge=0, description="The most signed for one owner's publishers and not delivered"
    )
    exposure_total: int = Field(default=20_000_000, ge=0, description="The same for all publishers together")
    bonuses: int = Field(
        default=1_000_000, ge=0, description="The most that is paid with bonuses for one owner's publishers in 30 days"
    )
    validity: Seconds = Field(default=300.0, ge=10, description="How long an authorization may live")
    max_body: Bytes = Field(default=1_048_576, description="The largest request body that can be sent once more")


class PayoutSettings(Section):
    """Paying publishers what they have earned (docs/payouts.md). Amounts are atomic units of the default asset."""

    holdback: float = Field(
        default=604_800.0, ge=0, le=31_536_000, description="How long earnings may still be refunded, and stay"
    )
    cooldown: float = Field(
        default=86_400.0, ge=0, le=31_536_000, description="How long nothing goes to an address that was changed"
    )
    minimum: int = Field(default=1_000_000, ge=1, description="The smallest payout: its transaction costs gas")
    approval_above: int = Field(
        default=10_000_000_000,
        ge=0,
        description="More than this in 24 hours needs a second member's approval; 0: never",
    )
    promotional: int = Field(
        default=0, ge=0, description="The most that one owner is paid in 30 days of what promotional credit has paid"
    )
    promotional_total: int = Field(
        default=100_000_000, ge=0, description="The same for all owners together, because owners are free"
    )


class FacilitatorSettings(Section):
    """Settling payments that other sellers have received (payments/facilitation.py). It costs this gateway's gas."""

    access: Literal["off", "listed", "key", "open"] = "key"
    organizations: tuple[str, ...] = Field(default=(), description="listed: ids of the organizations that may")
    per_minute: int = Field(default=60, ge=1, description="Settlements per minute and organization, or address")


class WebhookSettings(Section):
    """Events that organizations have sent to their own servers (docs/webhooks.md)."""

    timeout: Seconds = Field(default=15.0, description="How long a receiver may take to answer")
    retries: Annotated[tuple[str, ...], AfterValidator(_pauses)] = Field(
        default=("5", "300", "1800", "7200", "18000", "36000", "50400", "72000", "86400"),
        description="Seconds before each new try, a tenth more or less; after the last one it has failed",
    )
    disable_after: Seconds = Field(
        default=432_000.0, description="Without any success for so long a webhook is switched off"
    )
    keep: Seconds = Field(default=2_592_000.0, description="How long events and the log of their deliveries are kept")
    at_once: int = Field(default=100, ge=1, description="Deliveries under way at once, per worker")
    at_once_per_organization: int = Field(
        default=10, ge=1, description="The same for one organization, over all workers"
    )
    at_once_per_endpoint: int = Field(default=4, ge=1, description="The same for one webhook, over all workers")
    retry_after_max: Seconds = Field(
        default=86_400.0, description="Longest wait that a receiver may ask for by Retry-After"
    )
    low_balance: int = Field(
        default=1_000_000, ge=0, description="A wallet below this is told, in atomic units of the default asset"
    )


class LoggingSettings(Section):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
    access: bool = Field(default=False, description="One line per publisher call; costs about 20 microseconds each")
