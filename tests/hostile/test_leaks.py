"""What callers write into our log, and what our answers and log tell that they should not (EX-45, EX-46 and their class).

The gateways log at debug level. The log is read as its reader would read it: one JSON object per line.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from gateway.database.pool import Connection
from tests.hostile.conftest import lines_of
from tests.hostile.shops import Market, Tills
from tests.hostile.wire import ScriptedUpstream, ask, request
from tests.support.gateway import ROOT, RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

FORGED = '{"time":"2020-01-01T00:00:00.000Z","level":"info","logger":"gateway","message":"forged"}'
LINES = ["%0a", "%0d%0a", "%E2%80%A8", "%1b[2K", "\x1b[31m", "\\n", "\x85", "%00", '"},{"']


@pytest.mark.parametrize("mark", LINES, ids=ascii)
async def test_no_caller_writes_a_line_of_the_log(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, mark: str
) -> None:
    """Through the target, a slug, a field, a key, a method, a body, and what an upstream answers."""
    said = mark + FORGED.replace(" ", "%20")
    scripted.answers["broken"] = f"HTTP/1.1 200 OK\r\nX-A: {mark}{FORGED}\x01\r\n\r\n".encode("latin-1")
    for raw in (
        market.ask("GET", f"/x{said.replace('{', '%7B').replace('}', '%7D')}"),
        request("GET", f"/publishers/{said}/x"),
        request("GET", f"/{said}"),
        market.ask(
            "GET",
            "/x",
            f"User-Agent: {mark}{FORGED}",
            f"X-Request-Id: {mark}{FORGED}",
            f"Idempotency-Key: {mark}{FORGED}",
        ),
        request("GET", f"/publishers/{market.plain.slug}/x", f"Authorization: Bearer {mark}{FORGED}"),
        request("GET", f"/publishers/{market.plain.slug}/x", host=f"{mark}{FORGED}"),
        market.ask("GET", "/broken", shop=market.scripted),
        request(
            "POST", "/auth/agent", "Content-Type: application/json", body=f'{{"name":"{mark}'.encode() + FORGED.encode()
        ),
    ):
        try:
            await ask(wired.port, raw)
        except EOFError:
            continue
    lines = lines_of(wired)
    assert any("forged" in str(line.get("path")) for line in lines), (
        "the log has heard of none of it: nothing was tested"
    )
    for line in lines:
        assert line["message"] != "forged"
        assert str(line["time"]) >= "2024", line
        assert not set("\x1b\x85\u2028\r\n\0") & set(json.loads(json.dumps(line["logger"])))
    raw_log = wired.output()
    assert not set("\x1b\x00\r") & set(raw_log), "a control character went out raw"


SECRETS = ["the-publishers-own", "hunter2-hunter2", "the-query-key", "Bearer seren_"]


async def test_no_secret_is_in_any_log_or_answer(
    gateways: dict[str, RunningGateway],
    market: Market,
    tills: Tills,
    upstream: RecordingUpstream,
    scripted: ScriptedUpstream,
) -> None:
    """Calls that succeed and fail in every way, with secrets in each place where one may stand."""
    agent = await tills.agent("secrets")
    scripted.answers["odd"] = b"HTTP/1.1 999 hunter2-hunter2\r\nX-A: hunter2-hunter2\x01\r\n\r\n"
    fields = (
        "PAYMENT-SIGNATURE: hunter2-hunter2",
        "X-PAYMENT: hunter2-hunter2",
        "Cookie: s=hunter2-hunter2",
        "Proxy-Authorization: Basic hunter2-hunter2",
    )
    answers = []
    for gateway in gateways.values():
        for below, shop in (
            ("/x", market.plain),
            ("/status/503", market.plain),
            ("/reset", market.plain),
            ("/cut", market.plain),
            ("/odd", market.scripted),
            ("/%zz", market.plain),
        ):
            raw = request(
                "POST", f"/publishers/{shop.slug}{below}", *fields, key=agent.key, body=b"password=hunter2-hunter2"
            )
            try:
                answers.append(await ask(gateway.port, raw))
            except EOFError:
                continue
        answers.append(await ask(gateway.port, request("GET", "/auth/me", *fields, key=agent.key + "hunter2-hunter2")))
        answers.append(await ask(gateway.port, request("GET", f"/publishers/{market.keyed.slug}")))
    for answer in answers:
        assert agent.key.encode() not in answer.head + answer.body
        for secret in SECRETS[:3]:
            assert secret.encode() not in answer.head + answer.body, (secret, answer)
    for gateway in gateways.values():
        log = gateway.output()
        assert agent.key.split("_")[2] not in log
        for secret in (*SECRETS, market.agent.key.split("_")[2]):
            assert secret not in log, secret


@pytest.mark.parametrize(
    "url", ["mysql://root:hunter2@db/x", "root:hunter2@db", "postgres//root:hunter2@db/x", "http://root:hunter2@db/"]
)
def test_a_wrong_setting_is_named_in_one_line_without_its_password(url: str) -> None:
    """EX-47."""
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "serve"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "TOLLWAY_DATABASE_URL": url},
    )  # fmt: skip
    assert ran.returncode != 0
    told = (ran.stdout + ran.stderr).strip()
    assert ("TOLLWAY_DATABASE_URL" in told, "hunter2" in told, told.count("\n")) == (True, False, 0), told


INNARDS = (
    b"Traceback", b"asyncpg", b"psycopg", b"SELECT ", b"INSERT ", b"site-packages", b".py", b"uvloop", b"starlette", b"fastapi", b"pydantic", os.getcwd().encode(), b"/tmp/",
    b"127.0.0.1:", b"ledger.", b"identity.", b"catalog.", b"postgresql", b"redis",
)  # fmt: skip


async def test_no_refusal_shows_our_innards(gateways: dict[str, RunningGateway], market: Market) -> None:
    odd = [
        request(method, path, *fields, key=market.agent.key, body=body)
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "QUERY")
        for path in (
            "/", "/wallet/balance?limit=x", "/wallet/transactions?limit=-1&offset=9999999999999999999999", "/organizations/x/publishers", "/auth/me",
            "/organizations/00000000-0000-0000-0000-000000000000/publishers/%00", "/receipts/x", "/publishers?limit=1e9", "/publishers/suggest?q=%00",
            "/publishers/%00", "/nothing/here", "/docs", "/openapi.json/..", "/metrics/x", "/health/ready/x", "/.env", "/.git/config", "/server-status",
        )
        for fields, body in (((), b""), (("Content-Type: application/json",), b'{"name":{"$gt":""}}'))
    ]  # fmt: skip
    for server, gateway in gateways.items():
        answers = await asyncio.gather(*(ask(gateway.port, raw, head=raw.startswith(b"HEAD")) for raw in odd))
        for raw, answer in zip(odd, answers, strict=True):
            assert answer.status < 500 or answer.status == 501, (server, raw[:80], answer)
            if answer.status >= 400:
                for word in INNARDS:
                    assert word not in answer.body, (server, word, raw[:80], answer.body)
            assert not answer.all("x-powered-by")
            assert answer.all("server") == []


async def test_an_inactive_and_an_unknown_publisher_are_told_alike(
    gateway: RunningGateway, market: Market, world: World, connection: Connection
) -> None:
    shop = await world.publisher()
    await connection.execute("UPDATE catalog.publisher SET is_active = false WHERE id = $1", shop.id)
    for _ in range(3000):
        gone = await ask(gateway.port, market.ask("GET", "/x", shop=shop))
        if gone.status == 404:
            break
        await asyncio.sleep(0.02)
    never = await ask(gateway.port, market.ask("GET", "/x").replace(market.plain.slug.encode(), b"never-was"))
    same = [answer.body.replace(answer.get("x-request-id").encode(), b"") for answer in (gone, never)]
    assert (gone.status, never.status, same[0]) == (404, 404, same[1])


async def test_a_fault_of_an_upstream_tells_nothing_of_where_it_stands(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, upstream: RecordingUpstream
) -> None:
    scripted.answers["broken"] = b"garbage 10.0.0.5 /etc/passwd\r\n\r\n"
    for raw in (market.ask("GET", "/broken", shop=market.scripted), market.ask("GET", "/reset")):
        answer = await ask(wired.port, raw)
        assert answer.status == 502
        for word in (b"127.0.0.1", str(upstream.port).encode(), str(scripted.port).encode(), b"10.0.0.5", b"passwd"):
            assert word not in answer.body
