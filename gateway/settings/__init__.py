"""Settings: one frozen tree, read once at start from TOML and the environment.

Order, later wins: built-in defaults, the TOML file named by TOLLWAY_CONFIG, environment variables. Every field has the
environment name TOLLWAY_<SECTION>_<FIELD> (TOLLWAY_SERVER_PORT); the ones people type have a short name as well
(TOLLWAY_PORT). A wrong value stops the start with one line that names the setting, the value (masked where secret) and
the fix. Durations are seconds, sizes bytes, money atomic units of the default asset, unless the field says otherwise.
"""

from __future__ import annotations

from gateway.settings.base import SettingsError
from gateway.settings.contradictions import contradictions, warnings
from gateway.settings.loading import (
    NOT_SETTINGS,
    SECRET_FIELDS,
    SHORT_NAMES,
    layers,
    load,
    mask,
    nearest,
    setting_names,
)
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
    SettlementPolicy,
    WebhookSettings,
    WebSocketSettings,
    X402Settings,
)
from gateway.settings.tree import Settings

__all__ = (
    "NOT_SETTINGS",
    "SECRET_FIELDS",
    "SHORT_NAMES",
    "BreakerSettings",
    "BuyingSettings",
    "DatabaseSettings",
    "FacilitatorSettings",
    "IdempotencySettings",
    "InvoiceSettings",
    "LimitSettings",
    "LoggingSettings",
    "McpSettings",
    "MoneySettings",
    "PayoutSettings",
    "PlansSettings",
    "ProjectSettings",
    "ProxySettings",
    "QuerySettings",
    "RedisSettings",
    "SecretSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "SettingsError",
    "SettlementPolicy",
    "SmtpSettings",
    "StripeSettings",
    "WebSocketSettings",
    "WebhookSettings",
    "X402Settings",
    "contradictions",
    "layers",
    "load",
    "mask",
    "nearest",
    "setting_names",
    "warnings",
)
