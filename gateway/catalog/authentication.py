"""How a publisher's server knows the gateway where fields that never change are not enough.

auth_type   token exchange   sent with every call as `Authorization: Bearer`
---------   --------------   -----------------------------------------------------------------------------------
static      set              the token that `token_exchange_url` gives for `upstream_api_key`
jwt         unset            a token signed for this call by `jwt_secret_key`
jwt         set              the token that `token_exchange_url` gives for such a signed token (RFC 7523 style)
oauth2_cc   unset            an access token by OAuth2 client credentials (RFC 6749 section 4.4)

Pure: what was chosen, checked and compiled. Who signs and who asks for tokens: upstreams/auth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.catalog.refusals import refused

DEFAULT_LIFETIME = 1_800
"""Seconds that a signed token is good for."""
MAX_CLAIMS = 50
# Ours to say: a token is for now.
RESERVED_CLAIMS = frozenset({"exp", "iat", "nbf"})
LEAST_RSA_BITS = 2_048
# What is of use with one auth_type alone. Others have defaults that clients may send with any.
CREDENTIALS_OF = {
    "jwt_secret_key": "jwt",
    "jwt_claims": "jwt",
    "oauth2_client_secret": "oauth2_cc",
    "oauth2_token_url": "oauth2_cc",
}
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


@dataclass(frozen=True, slots=True)
class SignedTokens:
    """Sign a JSON Web Token per call. `key` is the shared secret (HS) or a private key in PEM (RS, ES).

    Strings in `claims` may hold {access_key}, {request_id} and {slug}.
    """

    algorithm: str
    key: str = field(repr=False)
    access_key: str | None = field(repr=False)
    seconds: int
    claims: Mapping[str, Any]
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Ask an OAuth2 server for access tokens."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenExchange:
    """Trade a credential (a key, or a token that we sign) for a token.

    `mode` says where the credential goes in the request: a field `name`, a member `name` of a JSON body, or a query
    parameter `name`. The token is at the dotted path `answer_field` of the JSON answer and is kept for `seconds`
    (None: as long as the answer's `expires_in` says).
    """

    url: str
    method: Literal["POST", "GET"]
    mode: Literal["header", "body", "query"]
    name: str
    credential: str | SignedTokens = field(repr=False)
    answer_field: str | None = None
    seconds: int | None = None


Authentication: TypeAlias = SignedTokens | ClientCredentials | TokenExchange


def compile_authentication(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> Authentication | None:
    """Return how calls authenticate, or None when the publisher's own fields are all there is."""
    auth = document.get("auth_type") or "static"
    if auth == "oauth2_cc":
        return ClientCredentials(
            str(document["oauth2_token_url"]),
            str(document["oauth2_client_id"]),
            str(secrets["oauth2_client_secret"]),
            tuple(str(scope) for scope in cast("Sequence[Any]", document.get("oauth2_scopes") or ())),
        )
    signed = _signed(document, secrets) if auth == "jwt" else None
    if document.get("token_exchange_url"):
        return _exchange(document, signed or str(secrets["upstream_api_key"]))
    return signed


def trades_key(document: Mapping[str, Any]) -> bool:
    """Return whether `upstream_api_key` is for the token server alone, and calls never carry it."""
    return bool(document.get("token_exchange_url")) and (document.get("auth_type") or "static") == "static"


def check_authentication(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
    """Raise InvalidRequest when the fields contradict or miss each other."""
    auth, exchanged = document.get("auth_type") or "static", bool(document.get("token_exchange_url"))
    if auth == "jwt":
        _check_signed(document, secrets)
    elif auth == "oauth2_cc":
        _check_oauth2(document, secrets, exchanged=exchanged)
    else:
        _check_unused(document, secrets)
    if auth == "static" and exchanged and "upstream_api_key" not in secrets:
        raise refused("upstream_api_key", "is required with token_exchange_url: it is what is traded for a token")
    if not exchanged:
        for name in ("token_exchange_method", "token_exchange_mode", "token_response_field", "token_cache_ttl_seconds"):
            if name in document:
                raise refused(name, "means nothing without token_exchange_url")
        if auth != "static" and "upstream_api_key" in secrets and _is_bearer(document):
            raise refused("upstream_api_key", f"would be the Authorization field, which auth_type {auth} fills")


def _check_unused(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
    """Calls without the token that somebody meant to send are refused by the publisher's server, and paid."""
    for name, auth in CREDENTIALS_OF.items():
        if name in document or name in secrets:
            raise refused(name, f"means nothing without auth_type {auth}; set that, or this to null")


def _check_signed(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
    key = secrets.get("jwt_secret_key")
    if key is None:
        raise refused("jwt_secret_key", "is required for auth_type jwt")
    algorithm = str(document.get("jwt_algorithm") or "HS256")
    if algorithm.startswith("HS") and str(key).startswith("-----BEGIN"):
        raise refused("jwt_algorithm", f"{algorithm} takes a shared secret; for a key in PEM choose RS or ES")
    if not algorithm.startswith("HS") and not _fits(str(key), algorithm):
        raise refused("jwt_secret_key", f"must be an unencrypted private key in PEM that fits {algorithm}")
    claims = document.get("jwt_claims")
    if claims is None:
        return
    if not isinstance(claims, dict) or len(cast("dict[str, Any]", claims)) > MAX_CLAIMS:
        raise refused("jwt_claims", f"must be an object of at most {MAX_CLAIMS} claims")
    for name in sorted(RESERVED_CLAIMS & cast("dict[str, Any]", claims).keys()):
        raise refused("jwt_claims", f"{name} is set by the gateway for every call")


def _fits(pem: str, algorithm: str) -> bool:
    """Return whether a private key can sign by an algorithm (RFC 7518 sections 3.3 and 3.4)."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    if algorithm.startswith("RS"):
        return isinstance(key, rsa.RSAPrivateKey) and key.key_size >= LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == CURVES[algorithm]


def _check_oauth2(document: Mapping[str, Any], secrets: Mapping[str, Any], *, exchanged: bool) -> None:
    needed = (
        ("oauth2_token_url", document),
        ("oauth2_client_id", document),
        ("oauth2_client_secret", secrets),
    )
    for name, holder in needed:
        if name not in holder:
            raise refused(name, "is required for auth_type oauth2_cc")
    if exchanged:
        raise refused("token_exchange_url", "cannot be combined with auth_type oauth2_cc: both would name the token")


def _is_bearer(document: Mapping[str, Any]) -> bool:
    if document.get("api_key_query_param"):
        return False
    return str(document.get("api_key_header") or "authorization").lower() == "authorization"


def _signed(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> SignedTokens:
    key_id = document.get("jwt_key_id")
    return SignedTokens(
        algorithm=str(document.get("jwt_algorithm") or "HS256"),
        key=str(secrets["jwt_secret_key"]),
        access_key=str(secrets["jwt_access_key"]) if "jwt_access_key" in secrets else None,
        seconds=int(document.get("jwt_expiration_seconds") or DEFAULT_LIFETIME),
        claims=document.get("jwt_claims") or {},
        key_id=str(key_id) if key_id else None,
    )


def _exchange(document: Mapping[str, Any], credential: str | SignedTokens) -> TokenExchange:
    mode = document.get("token_exchange_mode") or "header"
    names = {"header": "api_key_header", "query": "api_key_query_param"}
    default = {"header": "Authorization", "body": "api_key", "query": "api_key"}[mode]
    if mode == "body" and isinstance(credential, SignedTokens):
        default = "assertion"
    ttl = document.get("token_cache_ttl_seconds")
    return TokenExchange(
        url=str(document["token_exchange_url"]),
        method="GET" if document.get("token_exchange_method") == "GET" else "POST",
        mode=mode,
        name=str(document.get(names.get(mode, "")) or default),
        credential=credential,
        answer_field=document.get("token_response_field"),
        seconds=int(ttl) if ttl else None,
    )
