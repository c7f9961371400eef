"""Publishers' URLs that lead inside (EX-24, EX-29 and their class): refused when stored, and again when called.

The gateway here may call 127.0.0.2 only; what listens on 127.0.0.1 is the secret inside. Names are resolved by a name
server of the test's that changes its mind (flipping.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.hostile.shops import PRICE, Tills
from tests.hostile.wire import ask, request
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import World, by_nobody

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@dataclass
class Inside:
    """A gateway that may call 127.0.0.2, a server there, a secret one on 127.0.0.1 with the same port, and the names."""

    gateway: RunningGateway
    outer: RecordingUpstream
    secret: RecordingUpstream
    names: Path

    def flip(self, host: str, *addresses: str) -> None:
        known = json.loads(self.names.read_text())
        temporary = self.names.with_suffix(".new")
        temporary.write_text(json.dumps({**known, host: list(addresses)}))
        temporary.replace(self.names)

    def asked(self, host: str) -> int:
        return self.names.with_suffix(".asked").read_text().split().count(host)


@pytest_asyncio.fixture(scope="module")
async def inside(
    services: Services, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Inside]:
    outer, secret = RecordingUpstream(), RecordingUpstream()
    await outer.start("127.0.0.2")
    await secret.start("127.0.0.1", outer.port)
    names = tmp_path_factory.mktemp("names") / "names.json"
    names.write_text("{}")
    names.with_suffix(".asked").write_text("")
    running = await start_gateway(
        services, database_url, PROXY_ALLOW_ADDRESSES="127.0.0.2/32", BREAKER_FAILURES="0", BREAKER_CALLS="1000000",
        DEV_APP="tests.hostile.flipping:application", TEST_NAMES=str(names),
    )  # fmt: skip
    yield Inside(running, outer, secret, names)
    await running.stop()
    await outer.stop()
    await secret.stop()


STORED = {
    "loopback": "http://127.0.0.1:{p}/", "any": "http://0.0.0.0:{p}/", "short": "http://127.1:{p}/", "zero": "http://0:{p}/",
    "decimal": "http://2130706433:{p}/", "hex": "http://0x7f000001:{p}/", "hex parts": "http://0x7f.0.0x0.1:{p}/",
    "octal": "http://0177.0.0.1:{p}/", "octal whole": "http://017700000001:{p}/", "v6 loopback": "http://[::1]:{p}/",
    "v6 any": "http://[::]:{p}/", "mapped": "http://[::ffff:127.0.0.1]:{p}/", "mapped hex": "http://[::ffff:7f00:1]:{p}/",
    "compatible": "http://[::127.0.0.1]:{p}/", "translated": "http://[::ffff:0:127.0.0.1]:{p}/",
    "NAT64": "http://[64:ff9b::127.0.0.1]:{p}/", "NAT64 local": "http://[64:ff9b:1::7f00:1]:{p}/",
    "6to4": "http://[2002:7f00:1::]:{p}/", "Teredo": "http://[2001:0:7f00:1::]:{p}/", "zone": "http://[fe80::1%25lo]:{p}/",
    "localhost": "http://localhost:{p}/", "LocalHost": "http://LocalHost:{p}/", "below localhost": "http://a.localhost:{p}/",
    "trailing dot": "http://localhost.:{p}/", "number with dot": "http://127.0.0.1.:{p}/",
    "full-width": "http://１２７.0.0.1:{p}/", "circled": "http://①②⑦.⓪.⓪.①:{p}/", "ideographic dots": "http://127。0。0。1:{p}/",
    "private 10": "http://10.0.0.5/", "private 172": "http://172.16.0.1/", "private 192": "http://192.168.1.10/",
    "carrier": "http://100.64.0.1/", "metadata": "http://169.254.169.254/latest/", "metadata hex": "http://0xa9fea9fe/",
    "metadata mapped": "http://[::ffff:169.254.169.254]/", "metadata v6": "http://[fd00:ec2::254]/", "azure": "http://168.63.129.16/",
    "alibaba": "http://100.100.100.200/", "link-local v6": "http://[fe80::1]/", "unique local": "http://[fd12::1]/",
    "multicast": "http://224.0.0.1/", "broadcast": "http://255.255.255.255/", "documentation": "http://192.0.2.1/",
    "userinfo before": "http://127.0.0.2@127.0.0.1:{p}/", "userinfo with colon": "http://127.0.0.2:80@127.0.0.1:{p}/",
    "backslash": "http://127.0.0.2\\@127.0.0.1:{p}/", "fragment": "http://127.0.0.1:{p}#@127.0.0.2/",
    "query": "http://127.0.0.1:{p}?@127.0.0.2/", "tab": "http://127.0.0.1\t:{p}/", "line break": "http://127.0.0.1:{p}/\r\nX: y",
    "port zero": "http://127.0.0.2:0/", "port large": "http://127.0.0.2:65536/", "port word": "http://127.0.0.2:http/",
    "no host": "http:///x", "ftp": "ftp://127.0.0.2/", "file": "file:///etc/passwd", "gopher": "gopher://127.0.0.1:{p}/_x",
    "unix": "unix:///run/x.sock", "scheme-relative": "//127.0.0.1:{p}/", "dot segment": "http://127.0.0.2:{p}/a/../../x",
    "encoded dots": "http://127.0.0.2:{p}/%2e%2e/x",
}  # fmt: skip


async def order(inside: Inside, key: str, organization: object, slug: str, url: str) -> tuple[int, str]:
    body = {
        "name": "Shop", "slug": slug, "publisher_category": "integration", "integration_type": "api", "api_url": url,
        "wallet_address": WALLET, "wallet_network_id": "eip155:84532", "price_per_call": "0.05",
    }  # fmt: skip
    path = f"/organizations/{organization}/publishers"
    answer = await inside.gateway.client.post(path, json=body, headers={"Authorization": f"Bearer {key}"})
    return answer.status_code, answer.text


@pytest.mark.parametrize("form", STORED)
async def test_a_url_that_leads_inside_is_refused_when_it_is_stored(inside: Inside, world: World, form: str) -> None:
    owner = await world.agent()
    url = STORED[form].replace("{p}", str(inside.secret.port))
    status, text = await order(inside, owner.key, owner.organization_id, f"ssrf-{owner.id.hex[-12:]}", url)
    assert (status, "api_url" in text) == (400, True), text
    made = (await inside.gateway.client.get(f"/publishers/ssrf-{owner.id.hex[-12:]}")).status_code
    assert (made, inside.secret.calls) == (404, 0)


async def test_the_refusal_says_that_the_address_is_private(inside: Inside, world: World) -> None:
    owner = await world.agent()
    for number, (url, word) in enumerate({"http://192.168.1.10": "private", "http://[::1]:8080": "loopback"}.items()):
        status, text = await order(inside, owner.key, owner.organization_id, f"ex29-{number}-{owner.id.hex[-8:]}", url)
        assert (status, word in text) == (400, True)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%lo"]])  # fmt: skip
async def test_a_name_that_leads_inside_is_refused_when_it_is_stored(
    inside: Inside, world: World, addresses: list[str]
) -> None:
    owner = await world.agent()
    host = f"h{owner.id.hex[-12:]}.test"
    inside.flip(host, *addresses)
    status, text = await order(
        inside, owner.key, owner.organization_id, f"name-{owner.id.hex[-12:]}", f"https://{host}/"
    )
    assert (status, "api_url" in text) == (400, True), text


async def test_an_update_is_judged_like_a_creation(inside: Inside, world: World) -> None:
    owner = await world.agent()
    slug = f"update-{owner.id.hex[-12:]}"
    port = inside.outer.port
    status, text = await order(inside, owner.key, owner.organization_id, slug, f"http://127.0.0.2:{port}/")
    assert status == 201, text
    path = f"/organizations/{owner.organization_id}/publishers/{json.loads(text)['data']['id']}"
    for url in (f"http://127.0.0.1:{port}/", f"http://2130706433:{port}/", f"http://[::ffff:7f00:1]:{port}/"):
        answer = await inside.gateway.client.put(
            path, json={"api_url": url}, headers={"Authorization": f"Bearer {owner.key}"}
        )
        assert answer.status_code == 400, answer.text


CALLED = {form: url for form, url in STORED.items() if "{p}" in url and "127.0.0.2" not in url} | {
    "userinfo": "http://127.0.0.2@127.0.0.1:{p}/",
    "metadata": "http://169.254.169.254/",
    "private": "http://10.0.0.5/",
}


@pytest_asyncio.fixture(scope="module")
async def stored(inside: Inside, world: World) -> dict[str, str]:
    """Slugs of publishers with such URLs, put past the door: as if they had been stored before it was there."""
    heard, world.heard = world.heard, by_nobody
    slugs = {
        form: (await world.publisher(PRICE, api_url=url.replace("{p}", str(inside.secret.port)))).slug
        for form, url in CALLED.items()
    }
    world.heard = heard
    await world.publisher()
    return slugs


@pytest.mark.parametrize("form", CALLED)
async def test_a_stored_url_that_leads_inside_is_never_called(
    inside: Inside, stored: dict[str, str], tills: Tills, form: str
) -> None:
    agent = await tills.agent(form)
    answer = await ask(inside.gateway.port, request("GET", f"/publishers/{stored[form]}/x", key=agent.key))
    assert answer.status in (400, 404, 502)
    assert inside.secret.calls == 0
    for leak in (b"127.0.0.1", b"loopback", b"10.0.0.5", b"169.254", str(inside.secret.port).encode()):
        assert leak not in answer.body, "the caller is told what stands behind the publisher"
    await tills.expect(agent, 0)


async def test_a_name_that_changes_its_mind_is_judged_at_every_connection(
    inside: Inside, world: World, tills: Tills
) -> None:
    """DNS rebinding: good when it was stored and first called, then inside, then half inside, then good again."""
    agent = await tills.agent("rebinding")
    host = "flip.test"
    inside.flip(host, "127.0.0.2")
    shop = await world.publisher(PRICE, api_url=f"http://{host}:{inside.outer.port}")
    raw = request("GET", f"/publishers/{shop.slug}/x", key=agent.key)
    inside.outer.extra_headers = [("Connection", "close")]  # the next call needs a new connection
    for addresses, status in (
        (["127.0.0.2"], 200), (["127.0.0.1"], 502), (["127.0.0.2", "127.0.0.1"], 502), (["::1"], 502), (["127.0.0.2"], 200),
    ):  # fmt: skip
        inside.flip(host, *addresses)
        await asyncio.sleep(0.1)  # what was resolved before is kept for 0.05 s here
        assert (await ask(inside.gateway.port, raw)).status == status, addresses
    inside.outer.extra_headers = []
    assert inside.secret.calls == 0
    await tills.expect(agent, 2 * PRICE)


async def test_the_address_that_was_judged_is_the_one_that_is_called(
    inside: Inside, world: World, tills: Tills
) -> None:
    """One question for one connection: there is no second answer that a name server could give."""
    agent = await tills.agent("asked once")
    host = "once.test"
    inside.flip(host, "127.0.0.2")
    shop = await world.publisher(PRICE, api_url=f"http://{host}:{inside.outer.port}")
    before = inside.asked(host)
    answer = await ask(inside.gateway.port, request("GET", f"/publishers/{shop.slug}/x", key=agent.key))
    assert (answer.status, inside.asked(host) - before) == (200, 1)
    (seen,) = [one for one in inside.outer.requests if one.all("host") == [f"{host}:{inside.outer.port}"]]
    assert seen.target == "/x"
    await tills.expect(agent, PRICE)


@pytest.mark.parametrize("field", ["Host", "X-Forwarded-Host", "X-Host", "X-Forwarded-Server", "X-Upstream", "Location", "Destination"])  # fmt: skip
async def test_no_field_of_a_call_changes_where_it_goes(inside: Inside, world: World, tills: Tills, field: str) -> None:
    agent = await tills.agent(field)
    shop = await world.publisher(PRICE, api_url=f"http://127.0.0.2:{inside.outer.port}")
    inside.outer.forget()
    place = f"127.0.0.1:{inside.secret.port}"
    fields = () if field == "Host" else (f"{field}: {place}",)
    raw = request(
        "GET", f"/publishers/{shop.slug}/x", *fields, key=agent.key, host=place if field == "Host" else "gateway"
    )
    assert (await ask(inside.gateway.port, raw)).status == 200
    assert (inside.secret.calls, inside.outer.calls) == (0, 1)
    assert inside.outer.requests[0].all("host") == [f"127.0.0.2:{inside.outer.port}"]


async def test_a_redirect_inside_is_not_followed(inside: Inside, world: World, tills: Tills) -> None:
    agent = await tills.agent("redirect")
    shop = await world.publisher(PRICE, api_url=f"http://127.0.0.2:{inside.outer.port}")
    inside.outer.extra_headers = [("Location", f"http://127.0.0.1:{inside.secret.port}/latest/meta-data")]
    for status in (301, 302, 307, 308):
        answer = await ask(
            inside.gateway.port, request("GET", f"/publishers/{shop.slug}/status/{status}", key=agent.key)
        )
        assert answer.status == status
    inside.outer.extra_headers = []
    assert inside.secret.calls == 0
