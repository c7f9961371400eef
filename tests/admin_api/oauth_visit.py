"""An account on its way to an OAuth provider and back, with a browser of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk, Member
from tests.support.authorization_server import Provider


@dataclass
class Visit:
    """A seller's provider, and an account that connects to it with a browser of its own."""

    api: Api
    server: Provider
    seller: Member
    user: Member
    id: str
    slug: str = "acme"
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/oauth/providers/{self.id}"

    async def begin(self, expect: int = 302, **query: str) -> str:
        """Ask where consent is asked for, as the account."""
        answer = await self.api.call("GET", f"{self.path}/authorize", self.user.key, params=query, expect=expect)
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies = {name: value}
        self.api.http.cookies.clear()
        return answer.headers.get("location", "")

    async def consent(self, url: str) -> str:
        """Go to the provider; return where it sends the browser back to."""
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def back(self, url: str, expect: int = 302, *, cookies: bool = True, **options: Any) -> httpx.Response:
        """Come back with a browser: that which began, or another."""
        parts = urlsplit(url)
        fields = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {**({"Cookie": fields} if cookies else {}), **options.pop("headers", {})}
        answer = await self.api.call("GET", f"{parts.path}?{parts.query}", headers=headers, expect=expect, **options)
        self.api.http.cookies.clear()
        return answer

    async def connect(self) -> None:
        answer = await self.back(await self.consent(await self.begin()))
        assert answer.headers["location"] == f"{PUBLIC_URL}/oauth/done?provider={self.slug}&status=connected"

    async def connections(self) -> list[dict[str, Any]]:
        answer = await self.api.call("GET", "/oauth/connections", self.user.key, expect=200)
        return answer.json()["connections"]

    async def change(self, **changes: Any) -> None:
        url = f"/organizations/{self.seller.organization_id}/oauth/providers/{self.id}"
        await self.api.call("PATCH", url, self.seller.key, json=changes, expect=200)

    async def share(self) -> None:
        """Make the provider the platform's, as an operator does."""
        async with self.api.services.database.acquire() as connection:
            await connection.execute(
                "UPDATE oauth.provider SET organization_id = NULL, hosts = '{127.0.0.1}' WHERE id = $1", self.id
            )


async def visit_of(api: Api, clerk: Clerk, provider: Provider, slug: str, **changes: Any) -> Visit:
    seller, user = await clerk.agent(), await clerk.agent()
    url = f"/organizations/{seller.organization_id}/oauth/providers"
    body = provider.definition(slug, **changes)
    made = (await api.call("POST", url, seller.key, json=body, expect=201)).json()["data"]
    visit = Visit(api, provider, seller, user, made["id"], slug)
    provider.client.callbacks |= {f"{PUBLIC_URL}{visit.path}/callback", f"{PUBLIC_URL}/oauth/{slug}/callback"}
    async with api.services.database.acquire() as connection:
        shop = await clerk.publisher(seller)
        await connection.execute(
            "UPDATE catalog.publisher SET document = document || jsonb_build_object('oauth_provider_id', $2::text)"
            " WHERE id = $1", shop["id"], made["id"],
        )  # fmt: skip
    return visit


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
