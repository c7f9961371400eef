"""An OAuth provider for tests: authlib's authorization server, and an API that takes the tokens it gave.

/authorize asks nobody: it consents, or refuses while `denies` is set. /token, /revoke and /userinfo are what they are
called; anything else is the API, which answers 401 to a token that is none now. `requests` has all that arrived.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from authlib.oauth2 import rfc6749, rfc7009, rfc7636
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload, OAuth2Request
from authlib.oidc.core.grants import OpenIDCode

from tests.support.upstream import Recorded, RecordingUpstream

CLIENT, SECRET, USER, EMAIL = "gateway-at-provider", "provider-secret-5f0c", "user-17", "user@example.com"


@dataclass
class _Client(rfc6749.ClientMixin):
    methods: set[str] = field(default_factory=lambda: {"client_secret_basic", "client_secret_post"})
    callbacks: set[str] = field(default_factory=set)

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.callbacks

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.methods

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


@dataclass
class _Code(rfc6749.AuthorizationCodeMixin):
    code: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class Given(rfc6749.TokenMixin):
    """A pair of tokens."""

    access: str
    refresh: str | None
    scope: str
    alive: bool = True
    refreshable: bool = True

    def check_client(self, client: Any) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope

    def is_revoked(self) -> bool:
        return not self.alive


class _Request(OAuth2Request):
    def __init__(self, method: str, url: str, fields: dict[str, str], form: dict[str, str]) -> None:
        super().__init__(method, url, headers=fields)
        query = dict(parse_qsl(urlsplit(url).query))
        self._form = form
        self.payload = BasicOAuth2Payload({**query, **form})
        self._query = query

    @property
    def args(self) -> dict[str, str]:
        return self._query

    @property
    def form(self) -> dict[str, str]:
        return self._form


class _Library(rfc6749.AuthorizationServer):
    """Authlib's server on dictionaries."""

    def __init__(self, owner: Provider) -> None:
        super().__init__()
        self.owner = owner
        self.register_token_generator("default", self._generate)
        self.register_grant(_CodeGrant, [rfc7636.CodeChallenge(required=True), _IdTokens()])
        self.register_grant(_RefreshGrant)
        self.register_endpoint(_Revocation)

    def query_client(self, client_id: str) -> _Client | None:
        return self.owner.client if client_id == CLIENT else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        self.owner.given.append(Given(token["access_token"], token.get("refresh_token"), token["scope"]))

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        return None

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, Any, Any]:
        return status, body, headers

    def _generate(self, **asked: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "access_token": f"access-{secrets.token_hex(16)}", "token_type": "Bearer", "scope": asked["scope"],
        }  # fmt: skip
        if self.owner.lifetime is not None:
            made["expires_in"] = self.owner.lifetime
        if self.owner.renewable:
            made["refresh_token"] = f"refresh-{secrets.token_hex(16)}"
        return made


class _CodeGrant(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def save_authorization_code(self, code: str, request: Any) -> None:
        asked = request.payload.data
        made = _Code(
            code, asked["redirect_uri"], asked.get("scope", ""), asked.get("nonce"), asked.get("code_challenge"),
            asked.get("code_challenge_method"),
        )  # fmt: skip
        self.server.owner.codes[code] = made

    def query_authorization_code(self, code: str, client: Any) -> Any:
        return self.server.owner.codes.get(code)

    def delete_authorization_code(self, authorization_code: _Code) -> None:
        self.server.owner.codes.pop(authorization_code.code, None)

    def authenticate_user(self, authorization_code: _Code) -> str:
        return USER


class _RefreshGrant(grants.RefreshTokenGrant):
    """Each refresh token works once, and gives another."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Given | None:
        found = [one for one in self.server.owner.given if one.refresh == refresh_token and one.refreshable]
        return found[0] if found else None

    def authenticate_user(self, refresh_token: Given) -> str:
        return USER

    def revoke_old_credential(self, refresh_token: Given) -> None:
        refresh_token.refreshable = False


class _IdTokens(OpenIDCode):
    def exists_nonce(self, nonce: str, request: Any) -> bool:
        return False

    def get_client_algorithm(self, client: Any) -> str:
        return "HS256"

    def resolve_client_private_key(self, client: Any) -> dict[str, str]:
        return {"kty": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")}

    def get_client_claims(self, client: Any) -> dict[str, Any]:
        return {"iss": CLAIMED["iss"], "aud": [CLIENT]}

    def get_encode_header(self, client: Any) -> dict[str, str]:
        return {"alg": "HS256"}

    def generate_user_info(self, user: str, scope: str) -> dict[str, Any]:
        return {"sub": user, **CLAIMED}


class _Revocation(rfc7009.RevocationEndpoint):
    def query_token(self, token_string: str, token_type_hint: str | None) -> Given | None:
        given = self.server.owner.given
        found = [one for one in given if token_string in (one.access, one.refresh)]
        return found[0] if found else None

    def revoke_token(self, token: Given, request: Any) -> None:
        token.alive = token.refreshable = False


CLAIMED: dict[str, Any] = {"iss": ""}
"""What ID tokens say, whatever was asked."""


@dataclass
class Provider(RecordingUpstream):
    """The provider. `trouble` is a status that its token endpoint answers with instead; `pause` seconds before it."""

    client: _Client = field(default_factory=_Client)
    codes: dict[str, _Code] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    lifetime: int | None = 3600
    renewable: bool = True
    denies: bool = False
    says_issuer: str | None = None
    trouble: int = 0
    pause: float = 0.0

    def __post_init__(self) -> None:
        self.library = _Library(self)

    def definition(self, slug: str, **changes: Any) -> dict[str, Any]:
        """Return the body that defines this provider."""
        return {
            "name": "Test provider", "slug": slug, "authorization_url": f"{self.url}/authorize",
            "token_url": f"{self.url}/token", "userinfo_url": f"{self.url}/userinfo",
            "revocation_url": f"{self.url}/revoke", "client_id": CLIENT, "client_secret": SECRET,
            "scopes": ["read", "write"], **changes,
        }  # fmt: skip

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the forms that a path was sent."""
        return [
            dict(parse_qsl(one.body.decode())) for one in self.requests if one.target.partition("?")[0] == path
        ]  # fmt: skip

    def alive(self, access: str) -> bool:
        return any(one.access == access and one.alive for one in self.given)

    async def _answer(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        path = request.target.partition("?")[0]
        if path in ("/token", "/revoke"):
            await asyncio.sleep(self.pause)
        status, body, headers = self._decide(request, path)
        text = orjson.dumps(body) if not isinstance(body, str) else body.encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(text)}\r\n\r\n"
        writer.write(head.encode("latin-1") + text)
        await writer.drain()
        return True

    def _decide(self, request: Recorded, path: str) -> tuple[int, Any, list[tuple[str, str]]]:
        carried = [value.removeprefix("Bearer ") for value in request.all("authorization")]
        asked = _Request(
            request.method, f"https://provider.test{request.target}",
            {name.title(): value for name, value in request.headers}, dict(parse_qsl(request.body.decode("latin-1"))),
        )  # fmt: skip
        json = [("content-type", "application/json")]
        if path == "/authorize":
            return self._consent(asked)
        if path == "/token" and self.trouble:
            return self.trouble, {"error": "server_error"}, json
        if path == "/token":
            return self.library.create_token_response(asked)
        if path == "/revoke":
            return self.library.create_endpoint_response("revocation", asked)
        if len(carried) != 1 or not self.alive(carried[0]):
            return 401, {"carried": carried}, json
        if path == "/userinfo":
            return 200, {"sub": USER, "email": EMAIL}, json
        return 200, {"carried": carried}, json

    def _consent(self, asked: Any) -> tuple[int, Any, list[tuple[str, str]]]:
        grant = self.library.get_consent_grant(asked, end_user=USER)
        status, body, headers = self.library.create_authorization_response(asked, None if self.denies else USER, grant)
        if self.says_issuer is not None:
            headers = [
                (name, f"{value}&iss={self.says_issuer}" if name == "Location" else value) for name, value in headers
            ]
        return status, body, headers
