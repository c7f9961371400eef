"""Access tokens by OAuth2 client credentials (RFC 6749 section 4.4): the forms by authlib, the way by ours."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from authlib.oauth2.auth import ClientAuth

from gateway.catalog.authentication import ClientCredentials
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.auth.tokens import Token
from gateway.upstreams.transport import GuardedTransport
from pricing.response_path import pick

BASIC, POST = "client_secret_basic", "client_secret_post"
METHOD = "POST"
FIELDS = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded", "user-agent": "tollway"}
METHODS = (BASIC, POST)
"""How the client shows its secret, in the order of trying: every server must take the first, and some do not."""


class ClientCredentialsGrant:
    """Gets tokens for one publisher."""

    def __init__(self, plan: ClientCredentials, transport: GuardedTransport) -> None:
        self._plan = plan
        self._client = httpx.AsyncClient(transport=transport, trust_env=False)
        self._method: str | None = None

    async def fetch(self) -> Token:
        """Ask the token server. Raises TokenUnavailable with what it said."""
        refusal = "nothing"
        for method in (self._method,) if self._method is not None else METHODS:
            status, answer = await self._ask(method)
            if status == 200:
                self._method = method
                return _token(answer)
            refusal = _word(pick(answer, "error")) or f"status {status}"
            if refusal != "invalid_client":
                break
        raise TokenUnavailable(f"the token server refuses: {refusal}")

    async def _ask(self, method: str) -> tuple[int, object]:
        """Return the status and the JSON of the answer."""
        plan = self._plan
        form = {"grant_type": "client_credentials"} | ({"scope": " ".join(plan.scopes)} if plan.scopes else {})
        secret: Any = ClientAuth(plan.client_id, plan.client_secret, method)
        url, headers, body = secret.prepare(METHOD, plan.url, dict(FIELDS), urlencode(form))
        try:
            answer = await self._client.request(METHOD, url, headers=headers, content=body)
        except httpx.RequestError as error:
            raise TokenUnavailable(f"the token server cannot be asked: {error}") from None
        try:
            return answer.status_code, orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            if answer.status_code == 200:
                raise TokenUnavailable("the token server's answer is no JSON") from None
            return answer.status_code, None  # a failing server's page, a redirect: its status says more


def _token(answer: object) -> Token:
    value, kind = pick(answer, "access_token"), str(pick(answer, "token_type") or "Bearer")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or not value:
        raise TokenUnavailable("the token server's answer has no access_token")
    if kind.lower() != "bearer":
        raise TokenUnavailable("the token server's tokens are not of type Bearer")
    return Token(value.encode("ascii"), lifetime(pick(answer, "expires_in")))


def lifetime(said: object) -> float | None:
    """Return a lifetime in seconds as token servers say it, or None."""
    if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) < 10:
        said = int(said)
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < 1e9:
        return None
    return float(said)


def _word(text: object) -> str | None:
    """Return an error code as the server wrote it, if it is one."""
    word = str(text)[:60] if isinstance(text, str) else ""
    return word if word.isascii() and word.replace("_", "").replace("-", "").isalnum() else None
