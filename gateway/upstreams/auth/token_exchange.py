"""Tokens that a publisher's token server gives for its key, or for a token that the gateway signs."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

from gateway.catalog.authentication import TokenExchange
from gateway.upstreams.auth.client_credentials import lifetime
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.auth.signed import Signer
from gateway.upstreams.auth.tokens import Token
from gateway.upstreams.transport import GuardedTransport
from pricing.response_path import pick

DEFAULT_FIELDS = ("access_token", "token", "data.access_token", "data.token")
"""Where the token is looked for when the publisher does not say."""
DEFAULT_SECONDS = 300.0


class TokenServer:
    """Gets tokens for one publisher."""

    def __init__(self, plan: TokenExchange, transport: GuardedTransport, slug: str) -> None:
        self._plan, self._slug = plan, slug
        self._signer = None if isinstance(plan.credential, str) else Signer(plan.credential)
        self._client = httpx.AsyncClient(transport=transport, trust_env=False)

    async def fetch(self) -> Token:
        """Trade the credential. Raises TokenUnavailable with what the server answered."""
        try:
            answer = await self._client.send(self._request())
        except httpx.RequestError as error:
            raise TokenUnavailable(f"the token server cannot be asked: {error}") from None
        if not 200 <= answer.status_code < 300:
            raise TokenUnavailable(f"the token server answered {answer.status_code}")
        try:
            document: Any = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            raise TokenUnavailable("the token server's answer is no JSON") from None
        return self._token(document)

    def _request(self) -> httpx.Request:
        plan = self._plan
        credential = self._signer.sign({"slug": self._slug, "request_id": ""}) if self._signer else str(plan.credential)
        url, content = httpx.URL(plan.url), None
        headers = {"accept": "application/json", "user-agent": "tollway"}
        if plan.mode == "header":
            bearer = plan.name.lower() == "authorization" and " " not in credential
            headers[plan.name] = f"Bearer {credential}" if bearer else credential
        elif plan.mode == "query":
            url = url.copy_merge_params({plan.name: credential})
        else:
            content = orjson.dumps({plan.name: credential})
            headers["content-type"] = "application/json"
        return self._client.build_request(plan.method, url, headers=headers, content=content)

    def _token(self, document: Any) -> Token:
        plan = self._plan
        for path in (plan.answer_field,) if plan.answer_field else DEFAULT_FIELDS:
            value = pick(document, path)
            if isinstance(value, str) and value and value.isascii() and value.isprintable() and " " not in value:
                kept = float(plan.seconds) if plan.seconds else lifetime(pick(document, "expires_in"))
                return Token(value.encode("ascii"), kept or DEFAULT_SECONDS)
        raise TokenUnavailable("the token server's answer has no token where token_response_field says")
