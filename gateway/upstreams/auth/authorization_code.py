"""What an OAuth provider's server is asked for a caller (RFC 6749 sections 4.1 and 6, RFC 7009, OpenID Connect).

The forms are authlib's, the way is ours: every address passes the egress guard. Always with PKCE by S256 (RFC 7636):
servers that do not know it pass over it. What does not live here: state and who began (admin_api), storing (identity/).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

import httpx
import orjson
from authlib.oauth2 import rfc7636
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749 import parameters
from joserfc.errors import JoseError
from joserfc.jws import extract_compact

from gateway.upstreams.auth.client_credentials import lifetime
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.transport import GuardedTransport
from pricing.response_path import pick

log = logging.getLogger(__name__)

# Authlib says no types.
_consent_url: Callable[..., str] = cast("Any", parameters).prepare_grant_uri
_s256: Callable[[str], str] = cast("Any", rfc7636).create_s256_code_challenge

METHOD = "POST"
METHODS = ("client_secret_basic", "client_secret_post", "none")
FIELDS = {"accept": "application/json", "user-agent": "tollway"}
FORM = {**FIELDS, "content-type": "application/x-www-form-urlencoded"}
OPENID = "openid"
SKEW_SECONDS = 60
LONGEST_TOKEN = 16_384


class Refused(Exception):
    """The server answered no: `word` is its error code, or one of ours."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Client:
    """What this gateway is to a provider's server."""

    authorization_url: str
    token_url: str
    userinfo_url: str | None
    revocation_url: str | None
    issuer: str | None
    client_id: str
    client_secret: str = field(repr=False)
    method: str
    scopes: tuple[str, ...]

    @property
    def openid(self) -> bool:
        """Return whether it is asked who the user is, by an ID token."""
        return OPENID in self.scopes


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token server gave. `scopes` is None where it gave what was asked for."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    seconds: float | None
    scopes: tuple[str, ...] | None
    id_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose account at the provider it is, as far as the provider says."""

    user_id: str | None = None
    email: str | None = None


class AuthorizationServer:
    """Asks one provider's server."""

    def __init__(self, client: Client, transport: GuardedTransport) -> None:
        self._client = client
        self._http = httpx.AsyncClient(transport=transport, trust_env=False)

    def consent_url(self, callback: str, state: str, verifier: str, nonce: str) -> str:
        """Return where the user is asked."""
        client = self._client
        more = {"nonce": nonce} if client.openid else {}
        return _consent_url(
            client.authorization_url, client.client_id, "code", redirect_uri=callback, scope=" ".join(client.scopes),
            state=state, code_challenge=_s256(verifier), code_challenge_method="S256", **more,
        )  # fmt: skip

    async def redeem(self, code: str, callback: str, verifier: str, nonce: str) -> tuple[Tokens, Owner]:
        """Trade a code for tokens, and ask whose they are. Raises Refused or TokenUnavailable."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": callback, "code_verifier": verifier}
        tokens = await self._ask(form)
        claims = self._claims(tokens.id_token, nonce) if self._client.openid else {}
        return tokens, await self._owner(tokens, claims)

    async def refresh(self, token: str) -> Tokens:
        """Trade a refresh token for new tokens; one that comes without another goes on. Raises as `redeem`."""
        got = await self._ask({"grant_type": "refresh_token", "refresh_token": token})
        return got if got.refresh else Tokens(got.access, token, got.seconds, got.scopes, None)

    async def revoke(self, token: str, hint: str) -> bool:
        """Tell the server that a token is not used any more; return whether it has taken that."""
        url = self._client.revocation_url
        if url is None:
            return False
        try:
            status, _ = await self._post(url, {"token": token, "token_type_hint": hint})
        except TokenUnavailable:
            return False
        return status == 200

    async def _ask(self, form: dict[str, str]) -> Tokens:
        status, answer = await self._post(self._client.token_url, form)
        error = pick(answer, "error")
        if status == 200 and error is None:
            return _tokens(answer)
        if status >= 500 or status == 429:
            raise TokenUnavailable(f"the token server answered {status}")
        raise Refused(_word(error) or f"status_{status}")

    async def _post(self, url: str, form: dict[str, str]) -> tuple[int, object]:
        client = self._client
        shown: Any = ClientAuth(client.client_id, client.client_secret, client.method)
        url, headers, body = shown.prepare(METHOD, url, dict(FORM), urlencode(form))
        try:
            answer = await self._http.request(METHOD, url, headers=headers, content=body)
        except httpx.RequestError as error:
            raise TokenUnavailable(f"the token server cannot be asked: {error}") from None
        try:
            return answer.status_code, orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            return answer.status_code, None

    def _claims(self, id_token: str | None, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token that came straight from its server (OpenID Connect Core 3.1.3.7).

        The connection vouches for it as its signature would; what it says has to be about this consent. Raises Refused.
        """
        try:
            claims = cast("dict[str, Any]", orjson.loads(extract_compact((id_token or "").encode()).payload))
            audience = claims.get("aud")
            audiences: list[Any] = cast("list[Any]", audience) if isinstance(audience, list) else [audience]
            ends = float(claims["exp"])
        except (JoseError, ValueError, KeyError, TypeError, AttributeError):
            raise Refused("bad_id_token") from None
        ours = (
            self._client.client_id in audiences and claims.get("azp", self._client.client_id) == self._client.client_id
        )
        issued = self._client.issuer is None or claims.get("iss") == self._client.issuer
        if not ours or not issued or claims.get("nonce") != nonce or ends < time.time() - SKEW_SECONDS:
            raise Refused("bad_id_token")
        return claims

    async def _owner(self, tokens: Tokens, claims: dict[str, Any]) -> Owner:
        """Return whose tokens they are: a courtesy to who reads the list, so a silent server is no failure."""
        known = Owner(_name(claims.get("sub")), _email(claims))
        if self._client.userinfo_url is None:
            return known
        try:
            headers = {**FIELDS, "authorization": f"Bearer {tokens.access}"}
            answer = await self._http.get(self._client.userinfo_url, headers=headers)
            told = orjson.loads(answer.content) if answer.status_code == 200 else None
        except (httpx.RequestError, orjson.JSONDecodeError) as error:
            log.info("an OAuth provider does not say who its user is: %s", type(error).__name__)
            return known
        if not isinstance(told, dict):
            return known
        facts = cast("dict[str, Any]", told)
        user_id = _name(facts.get("sub")) or _name(facts.get("id"))
        if known.user_id is not None and user_id != known.user_id:  # OpenID Connect Core 5.3.2
            return known
        return Owner(user_id, _email(facts) or known.email)


def _tokens(answer: object) -> Tokens:
    access, refresh = _token(pick(answer, "access_token")), pick(answer, "refresh_token")
    if access is None:
        raise Refused("no_access_token")
    if str(pick(answer, "token_type") or "Bearer").lower() != "bearer":
        raise Refused("no_bearer_token")
    scope, id_token = pick(answer, "scope"), pick(answer, "id_token")
    return Tokens(
        access,
        refresh if isinstance(refresh, str) and 0 < len(refresh) <= LONGEST_TOKEN else None,
        lifetime(pick(answer, "expires_in")),
        tuple(scope.replace(",", " ").split())[:100] if isinstance(scope, str) and scope else None,
        id_token if isinstance(id_token, str) else None,
    )


def _token(value: object) -> str | None:
    """Return an access token that can stand in a field."""
    fits = isinstance(value, str) and 0 < len(value) <= LONGEST_TOKEN and value.isascii() and value.isprintable()
    return str(value) if fits and " " not in str(value) else None


def _name(value: object) -> str | None:
    text = str(value) if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)) else ""
    return text if 0 < len(text) <= 255 and text.isprintable() else None


def _email(facts: dict[str, Any]) -> str | None:
    return None if facts.get("email_verified") is False else _name(facts.get("email"))


def _word(text: object) -> str | None:
    word = str(text)[:60] if isinstance(text, str) else ""
    return word if word.isascii() and word.replace("_", "").replace("-", "").isalnum() else None
