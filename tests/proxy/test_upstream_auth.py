"""Publishers whose servers want more than a fixed key: signed tokens, OAuth2 access tokens, traded tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.support.gateway import RunningGateway
from tests.support.token_server import CLIENT, KEY, SECRET, TokenServer
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")
SHARED = "a-shared-secret-of-some-length-0123456789"
OAUTH = {"oauth2_client_id": CLIENT, "oauth2_client_secret": SECRET, "oauth2_scopes": ["read", "write"]}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TokenServer]:
    running = TokenServer()
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def owner(world: World) -> Agent:
    return await world.agent(1_000_000)


async def publisher(gateway: RunningGateway, owner: Agent, server: TokenServer, **fields: Any) -> dict[str, Any]:
    """Create one by the API as its owner does; returns the status and the answer."""
    body = {
        "name": "Guarded", "slug": f"guarded-{time.time_ns()}", "publisher_category": "integration",
        "api_url": server.url, "wallet_address": "0x" + "11" * 20, "wallet_network_id": "eip155:8453",
        "price_per_call": "0.01", **fields,
    }  # fmt: skip
    answer = await gateway.client.post(
        f"/organizations/{owner.organization_id}/publishers", headers=owner.headers, json=body
    )
    document = answer.json()
    return {"status": answer.status_code, "slug": body["slug"], "problem": document, **(document.get("data") or {})}


async def call(gateway: RunningGateway, owner: Agent, shop: dict[str, Any], **options: Any) -> Any:
    assert shop["status"] == 201, shop["problem"]
    await gateway.hears(shop["slug"])
    return await gateway.client.request(
        options.pop("method", "GET"), f"/publishers/{shop['slug']}/x", headers=owner.headers, **options
    )


def pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


RSA, P256 = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("algorithm", "key", "verifies"),
    [
        ("HS256", SHARED, OctKey.import_key(SHARED)),
        ("HS512", SHARED, OctKey.import_key(SHARED)),
        ("RS256", pem(RSA), RSAKey.import_key(public(RSA))),
        ("ES256", pem(P256).replace("\n", "\\n"), ECKey.import_key(public(P256))),
    ],
)
async def test_every_call_carries_a_token_signed_for_it(
    gateway: RunningGateway, owner: Agent, server: TokenServer, algorithm: str, key: str, verifies: Any
) -> None:
    server.good = None
    shop = await publisher(
        gateway, owner, server, auth_type="jwt", jwt_access_key="ak-1", jwt_secret_key=key, jwt_algorithm=algorithm,
        jwt_expiration_seconds=120, jwt_key_id="k1",
        jwt_claims={"aud": "api", "jti": "{request_id}", "sub": "via {slug}", "roles": ["reader"]},
    )  # fmt: skip
    for _ in range(2):
        answer = await call(gateway, owner, shop)
        token = jwt.decode(answer.json()["carried"][0].removeprefix("Bearer "), verifies, algorithms=[algorithm])
        now = int(time.time())
        assert token.header == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
        assert (token.claims["iss"], token.claims["aud"], token.claims["roles"]) == ("ak-1", "api", ["reader"])
        assert token.claims["jti"] == answer.headers["x-request-id"]
        assert token.claims["sub"] == f"via {shop['slug']}"
        assert token.claims["nbf"] <= now
        assert 100 < token.claims["exp"] - now <= 120
    assert key not in str(shop["problem"])


async def test_many_calls_at_once_share_one_access_token(
    gateway: RunningGateway, owner: Agent, server: TokenServer
) -> None:
    shop = await publisher(
        gateway, owner, server, auth_type="oauth2_cc", oauth2_token_url=f"{server.url}/oauth/token", **OAUTH
    )
    answers = await asyncio.gather(*(call(gateway, owner, shop) for _ in range(20)))
    assert [answer.json().get("carried") for answer in answers] == [["Bearer token-1"]] * 20
    assert server.given == 1


async def test_a_token_that_is_no_longer_taken_is_replaced_once(
    gateway: RunningGateway, world: World, owner: Agent, server: TokenServer
) -> None:
    shop = await publisher(
        gateway, owner, server, auth_type="oauth2_cc", oauth2_token_url=f"{server.url}/oauth/token", **OAUTH
    )
    await call(gateway, owner, shop)
    assert server.good is not None
    server.good.clear()
    answer = await call(gateway, owner, shop, method="POST", content=b"again")
    assert (answer.status_code, answer.json()["carried"], answer.json()["body"]) == (200, ["Bearer token-2"], 5)
    server.good = set()
    server.status = 500
    before = await world.balance(owner)
    refused = await call(gateway, owner, shop)
    assert (refused.status_code, refused.json()["type"]) == (502, "/problems/upstream-unreachable")
    assert await world.balance(owner) == before, "a call that could not be authenticated costs nothing"


async def test_a_short_lived_token_is_asked_for_again_in_time(
    gateway: RunningGateway, owner: Agent, server: TokenServer
) -> None:
    server.lifetime, server.takes_basic = "1", False  # this one wants its secret in the form
    shop = await publisher(
        gateway, owner, server, auth_type="oauth2_cc", oauth2_token_url=f"{server.url}/oauth/token", **OAUTH
    )
    carried = [(await call(gateway, owner, shop)).json()["carried"]]
    await asyncio.sleep(1.1)
    carried.append((await call(gateway, owner, shop)).json()["carried"])
    assert carried == [["Bearer token-1"], ["Bearer token-2"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"token_exchange_mode": "header", "api_key_header": "X-Key"},
        {},
        {"token_exchange_mode": "body"},
        {"token_exchange_method": "GET", "token_exchange_mode": "query", "api_key_query_param": "key"},
    ],
)
async def test_a_key_is_traded_and_never_sent_with_a_call(
    gateway: RunningGateway, owner: Agent, server: TokenServer, fields: dict[str, Any]
) -> None:
    shop = await publisher(
        gateway, owner, server, upstream_api_key=KEY, token_exchange_url=f"{server.url}/trade",
        token_response_field="session.tokens[0]", **fields,
    )  # fmt: skip
    answers = [await call(gateway, owner, shop) for _ in range(2)]
    assert [answer.json().get("carried", answer.text) for answer in answers] == [["Bearer token-1"]] * 2
    assert KEY not in answers[0].text


async def test_the_connection_test_says_what_the_token_server_answered(
    gateway: RunningGateway, owner: Agent, server: TokenServer
) -> None:
    shop = await publisher(
        gateway, owner, server, auth_type="oauth2_cc", oauth2_token_url=f"{server.url}/oauth/token",
        **{**OAUTH, "oauth2_client_secret": "wrong"},
    )  # fmt: skip
    path = f"/organizations/{owner.organization_id}/publishers/{shop['id']}/test-connection"
    answer = await gateway.client.post(path, headers=owner.headers, json={})
    data = answer.json()["data"]
    assert (data["ok"], data["outcome"]) == (False, "unauthorized")
    assert data["detail"] == "There is no token to call with: the token server refuses: invalid_client."


@pytest.mark.parametrize(
    ("status", "page", "said"),
    [
        (503, b"<html>down</html>", "the token server refuses: status 503"),
        (302, b"", "the token server refuses: status 302"),
        (400, b'{"error": "<script>"}', "the token server refuses: status 400"),
        (200, b"<html>", "the token server's answer is no JSON"),
        (200, b'{"access_token": "a\\r\\nX-Evil: 1"}', "the token server's answer has no access_token"),
    ],
)
async def test_a_token_server_in_trouble_is_named_by_its_status_and_costs_nothing(
    gateway: RunningGateway, owner: Agent, server: TokenServer, status: int, page: bytes, said: str
) -> None:
    server.status, server.page = status, page
    shop = await publisher(
        gateway, owner, server, auth_type="oauth2_cc", oauth2_token_url=f"{server.url}/oauth/token", **OAUTH
    )
    answer = await call(gateway, owner, shop)
    assert (answer.status_code, answer.headers["x-cost"]) == (502, "0")
    path = f"/organizations/{owner.organization_id}/publishers/{shop['id']}/test-connection"
    data = (await gateway.client.post(path, headers=owner.headers, json={})).json()["data"]
    assert data["detail"] == f"There is no token to call with: {said}."


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"auth_type": "jwt"}, "jwt_secret_key"),
        ({"auth_type": "jwt", "jwt_secret_key": SHARED, "jwt_algorithm": "RS256"}, "jwt_secret_key"),
        ({"auth_type": "jwt", "jwt_secret_key": pem(P256), "jwt_algorithm": "ES384"}, "jwt_secret_key"),
        ({"auth_type": "jwt", "jwt_secret_key": pem(P256)}, "jwt_algorithm"),
        ({"auth_type": "jwt", "jwt_secret_key": SHARED, "jwt_claims": {"exp": 1}}, "jwt_claims"),
        ({"auth_type": "jwt", "jwt_secret_key": SHARED, "jwt_claims": ["x"]}, "jwt_claims"),
        ({"auth_type": "jwt", "jwt_secret_key": SHARED, "upstream_api_key": "k"}, "upstream_api_key"),
        ({"jwt_secret_key": SHARED}, "jwt_secret_key"),
        ({"auth_type": "static", "jwt_claims": {"a": "b"}}, "jwt_claims"),
        (OAUTH, "oauth2_client_secret"),
        ({"oauth2_token_url": "https://tokens.example/t"}, "oauth2_token_url"),
        ({"auth_type": "oauth2_cc", **OAUTH}, "oauth2_token_url"),
        ({"auth_type": "oauth2_cc", **OAUTH, "oauth2_token_url": "http://10.0.0.1/t"}, "oauth2_token_url"),
        ({"token_exchange_url": "https://tokens.example/x"}, "upstream_api_key"),
        ({"upstream_api_key": "k", "token_cache_ttl_seconds": 5}, "token_cache_ttl_seconds"),
    ],
)
async def test_fields_that_contradict_or_miss_each_other_are_refused(
    gateway: RunningGateway, owner: Agent, server: TokenServer, fields: dict[str, Any], named: str
) -> None:
    shop = await publisher(gateway, owner, server, **fields)
    assert shop["status"] == 400
    assert [error["field"] for error in shop["problem"]["errors"]] == [named]
