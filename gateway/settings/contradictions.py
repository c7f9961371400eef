"""Settings that are right one by one and wrong together, and those that are dangerous outside development.

Asked by `tollway serve` and `tollway config check`, not by `load`: commands that only read need no whole configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from gateway.settings.tree import Settings

# Of each pair the first must not be more than the second; why not.
IN_ORDER = (
    ("proxy.connect_timeout", "proxy.total_timeout", "it would never end a call"),
    ("proxy.first_byte_timeout", "proxy.total_timeout", "it would never end a call"),
    ("proxy.idle_timeout", "proxy.total_timeout", "it would never end a call"),
    ("proxy.connect_timeout_max", "proxy.total_timeout_max", "it would never end a call"),
    ("proxy.first_byte_timeout_max", "proxy.total_timeout_max", "it would never end a call"),
    ("proxy.idle_timeout_max", "proxy.total_timeout_max", "it would never end a call"),
    ("proxy.total_timeout_max", "idempotency.lifetime", "a repeat during a long call would be charged again"),
    ("queries.plan_seconds", "queries.seconds", "it would never end a query"),
    ("queries.statement_seconds", "queries.seconds", "it would never end a query"),
    ("queries.row_size", "queries.size", "no answer could hold such a row"),
    ("breaker.wait", "breaker.wait_max", "it is the bound of it"),
    ("websocket.idle_timeout", "websocket.lifetime", "it would never end a connection"),
    ("money.minimum_deposit_cents", "money.maximum_deposit_cents", "no deposit by card would be possible"),
    ("x402.wait", "x402.replay", "a caller could not come back for the answer that it paid"),
    ("buying.most", "buying.exposure", "the dearest call could never be bought"),
    ("sessions.access", "sessions.lifetime", "an access token would outlive its session"),
)


HARMLESS = {
    "it would never end a call",
    "it would never end a query",
    "it would never end a connection",
    "the dearest call could never be bought",
}


def contradictions(settings: Settings) -> list[str]:
    """Return one line for each contradiction, naming the settings."""
    return [*_out_of_order(settings), *_ignored(settings), *_open_doors(settings)]


def warnings(settings: Settings) -> list[str]:
    """Return one line for each setting that is right for development and seldom elsewhere."""
    return list(_development(settings))


def _out_of_order(settings: Settings) -> Iterator[str]:
    for smaller, larger, why in IN_ORDER:
        low, high = _value(settings, smaller), _value(settings, larger)
        # A default that a shorter bound ends sooner contradicts nobody.
        if low > high and (why not in HARMLESS or _chosen(settings, smaller)):
            yield f"{_variable(smaller)}={low:g} is more than {_variable(larger)}={high:g}: {why}"


def _ignored(settings: Settings) -> Iterator[str]:
    """Yield what is set, and has no effect because of something else."""
    facilitator, smtp = settings.facilitator, settings.smtp
    if facilitator.organizations and facilitator.access != "listed":
        yield f"TOLLWAY_FACILITATOR_ORGANIZATIONS has no effect with TOLLWAY_FACILITATOR_ACCESS={facilitator.access}"
    if facilitator.access == "listed" and not facilitator.organizations:
        yield "TOLLWAY_FACILITATOR_ACCESS=listed needs TOLLWAY_FACILITATOR_ORGANIZATIONS, or is off"
    if smtp.host and smtp.folder:
        yield "TOLLWAY_SMTP_FOLDER has no effect beside TOLLWAY_SMTP_HOST: keep one"
    if bool(smtp.username) != bool(smtp.password):
        yield "TOLLWAY_SMTP_USERNAME and TOLLWAY_SMTP_PASSWORD belong together: set both or neither"


def _open_doors(settings: Settings) -> Iterator[str]:
    for network in settings.server.trusted_proxies:
        if ip_network(network).prefixlen == 0:
            yield f"TOLLWAY_SERVER_TRUSTED_PROXIES={network}: anybody could claim any address; name the proxies"
    for network in settings.proxy.allow_addresses:
        if ip_network(network).prefixlen == 0:
            yield f"TOLLWAY_PROXY_ALLOW_ADDRESSES={network}: publishers could reach all that is private; name less"
    base, key = urlsplit(settings.stripe.api_base), settings.stripe.secret_key
    if base.scheme not in ("http", "https") or not base.hostname:
        yield "TOLLWAY_STRIPE_API_BASE: must be https://api.stripe.com, or a stand-in's base URL"
    elif "_live_" in key[:8] and (base.scheme, base.hostname) != ("https", "api.stripe.com"):
        yield "TOLLWAY_STRIPE_API_BASE: a live TOLLWAY_STRIPE_SECRET_KEY is sent to https://api.stripe.com only"


def _development(settings: Settings) -> Iterator[str]:
    public = urlsplit(settings.public_url)
    here = public.hostname in ("localhost", "127.0.0.1", "::1")
    if settings.proxy.allow_addresses:
        allowed = ", ".join(settings.proxy.allow_addresses)
        yield f"TOLLWAY_PROXY_ALLOW_ADDRESSES lets publishers reach {allowed}: for development only"
    if public.scheme == "http" and not here:
        yield "TOLLWAY_PUBLIC_URL is http://: keys and cookies can be read on the way; use https://"
    if "_test_" in settings.stripe.secret_key[:8] and public.scheme == "https" and not here:
        yield "TOLLWAY_STRIPE_SECRET_KEY is a test key: deposits by card are not money, and their credit is"
    if not settings.server.public_url and not settings.server.host.strip("0.:"):
        yield "TOLLWAY_PUBLIC_URL is empty: answers name http://" + settings.server.host


def _value(settings: Settings, place: str) -> float:
    section, field = place.split(".")
    return getattr(getattr(settings, section), field)


def _chosen(settings: Settings, place: str) -> bool:
    section, field = place.split(".")
    return field in getattr(settings, section).model_fields_set


def _variable(place: str) -> str:
    return "TOLLWAY_" + place.replace(".", "_").upper()
