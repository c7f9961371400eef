"""All sections, as one frozen tree."""

from __future__ import annotations

from gateway.settings.base import Section
from gateway.settings.organizations import (
    InvoiceSettings,
    PlansSettings,
    ProjectSettings,
    SecretSettings,
    SessionSettings,
    SmtpSettings,
    StripeSettings,
)
from gateway.settings.runtime import (
    BreakerSettings,
    BuyingSettings,
    DatabaseSettings,
    FacilitatorSettings,
    IdempotencySettings,
    LimitSettings,
    LoggingSettings,
    McpSettings,
    MoneySettings,
    PayoutSettings,
    ProxySettings,
    QuerySettings,
    RedisSettings,
    ServerSettings,
    WebhookSettings,
    WebSocketSettings,
    X402Settings,
)


class Settings(Section):
    """The whole tree. Built by `load`; tests build it directly."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    limits: LimitSettings = LimitSettings()
    proxy: ProxySettings = ProxySettings()
    queries: QuerySettings = QuerySettings()
    mcp: McpSettings = McpSettings()
    breaker: BreakerSettings = BreakerSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    money: MoneySettings = MoneySettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    x402: X402Settings = X402Settings()
    buying: BuyingSettings = BuyingSettings()
    payouts: PayoutSettings = PayoutSettings()
    facilitator: FacilitatorSettings = FacilitatorSettings()
    plans: PlansSettings = PlansSettings()
    webhooks: WebhookSettings = WebhookSettings()
    invoices: InvoiceSettings = InvoiceSettings()
    stripe: StripeSettings = StripeSettings()
    projects: ProjectSettings = ProjectSettings()
    secrets: SecretSettings = SecretSettings()
    sessions: SessionSettings = SessionSettings()
    smtp: SmtpSettings = SmtpSettings()
    logging: LoggingSettings = LoggingSettings()

    @property
    def public_url(self) -> str:
        """Return the base URL that answers name, without a trailing slash."""
        scheme = "https" if self.server.tls_certificate else "http"
        return self.server.public_url or f"{scheme}://{self.server.host}:{self.server.port}"
