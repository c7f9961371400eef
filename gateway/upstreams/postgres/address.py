"""Where a publisher's database is: its connection string, read strictly, and the TLS that reaches it.

Only what is needed for one TCP connection to one host is accepted: libpq's strings can also name local files, sockets,
services and further hosts, which would be ours and not the publisher's.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.upstreams.egress import EgressRefused, canonical_host

TlsMode = Literal["disable", "require", "verify-full"]
TLS_MODES: tuple[TlsMode, ...] = ("disable", "require", "verify-full")
_SCHEMES = ("postgresql", "postgres")


class BadConnectionString(ValueError):
    """The connection string cannot be used. The message says why and never repeats it."""


@dataclass(frozen=True, slots=True)
class Address:
    """One database of one server. The password is not shown."""

    host: str
    port: int
    user: str
    database: str
    password: str = field(repr=False)
    tls: TlsMode = "verify-full"
    ca: str | None = field(default=None, repr=False)
    """PEM certificates to trust instead of the system's."""


def read_address(connection_string: str, *, tls: str | None = None, ca: str | None = None) -> Address:
    """Return the address in `postgresql://user:password@host[:port]/database[?sslmode=…]`.

    `tls` of the configuration goes before `sslmode`. Raises BadConnectionString.
    """
    parts = _split(connection_string)
    mode = tls
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "sslmode":
            raise BadConnectionString(f"has the parameter {name[:40]!r}; only sslmode is accepted")
        mode = mode or {"prefer": "require", "allow": "require", "verify-ca": "verify-full"}.get(value, value)
    if mode is not None and mode not in TLS_MODES:
        raise BadConnectionString(f"has an unknown TLS mode; use one of {', '.join(TLS_MODES)}")
    try:
        host, port = canonical_host(parts.hostname or ""), parts.port or 5432
    except (EgressRefused, ValueError):
        raise BadConnectionString("has no usable host and port") from None
    user, password, database = (unquote(text or "") for text in (parts.username, parts.password, parts.path[1:]))
    if not user or not password or not database or "/" in database:
        raise BadConnectionString("must name a user, a password and a database")
    if any(character < " " for character in user + password + database):
        raise BadConnectionString("contains a control character")
    return Address(host, port, user, database, password, mode or "verify-full", ca)  # type: ignore[arg-type]


def _split(text: str) -> Any:
    if len(text) > 2048 or not text.isprintable() or " " in text:
        raise BadConnectionString("must be a URL without spaces of at most 2048 characters")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise BadConnectionString("is not a URL") from None
    if parts.scheme not in _SCHEMES or parts.fragment or not parts.netloc or "," in parts.netloc:
        raise BadConnectionString("must look like postgresql://user:password@host:5432/database")
    return parts


def distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Return in words why a certificate was not accepted."""
    if error.verify_code in _OTHER_NAME:
        return f"The database's certificate is for another name than {host}."
    if error.verify_code == _EXPIRED:
        return "The database's certificate has expired."
    return "The database's certificate is not trusted: put its authority's PEM into `ca`."


# OpenSSL's codes (X509_V_ERR_…).
_OTHER_NAME = (62, 64)
_EXPIRED = 10


class _Named(ssl.SSLContext):
    """Verifies the publisher's host name although the connection goes to a checked address."""

    name: str

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        options["server_hostname"] = self.name
        return super().wrap_bio(*args[:2], **options)


def tls_context(address: Address) -> ssl.SSLContext | Literal[False]:
    """Return how to speak TLS to a database; False for none. `require` encrypts and trusts any certificate."""
    if address.tls == "disable":
        return False
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = address.host
    if address.tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif address.ca is not None:
        context.load_verify_locations(cadata=address.ca)
    else:
        context.load_default_certs()
    return context
