"""Every paid call has a receipt that a stranger can verify and nobody can change."""

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from gateway.billing.receipts import ReceiptError, verify
from tests.support.gateway import ROOT, RunningGateway
from tests.support.world import World


async def bought(gateway: RunningGateway, world: World, path: str = "/v1/data?q=1"):
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, gateway_fee_percent="10")
    answer = await gateway.client.get(f"/publishers/{shop.slug}{path}", headers=agent.headers)
    for _ in range(1200):
        receipt = await gateway.client.get(f"/receipts/{answer.headers['x-request-id']}", headers=agent.headers)
        if receipt.json()["data"]["claims"]["delivered"]["outcome"] != "open":
            break
        await asyncio.sleep(0.05)
    return agent, shop, answer, receipt.json()["data"]


async def test_a_receipt_says_what_was_asked_delivered_and_paid(gateway: RunningGateway, world: World) -> None:
    agent, shop, answer, receipt = await bought(gateway, world)
    keys = (await gateway.client.get("/.well-known/jwks.json")).json()
    claims = verify(receipt["receipt"], keys)
    assert claims == receipt["claims"]
    assert claims["jti"] == answer.headers["x-request-id"]
    assert claims["sub"] == str(agent.id)
    target = f"/publishers/{shop.slug}/v1/data?q=1"
    assert claims["request"]["method"] == "GET"
    assert claims["request"]["target_sha256"] == hashlib.sha256(target.encode()).hexdigest()
    assert claims["delivered"]["status"] == 200
    assert claims["delivered"]["outcome"] == "settled"
    assert claims["delivered"]["body_bytes"] == len(answer.content)
    assert claims["delivered"]["body_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (claims["price"]["charged"], claims["price"]["platform_fee"]) == ("0.01", "0.001")
    assert len(claims["ledger"]) == 1


async def test_streamed_bodies_are_hashed_too(gateway: RunningGateway, world: World) -> None:
    _, _, answer, receipt = await bought(gateway, world, "/chunks?n=3&pause=10")
    assert receipt["claims"]["delivered"]["body_sha256"] == hashlib.sha256(answer.content).hexdigest()


async def test_a_refunded_call_has_a_receipt_over_nothing(gateway: RunningGateway, world: World) -> None:
    _, _, _, receipt = await bought(gateway, world, "/status/503")
    claims = receipt["claims"]
    assert (claims["delivered"]["outcome"], claims["delivered"]["reason"]) == ("refunded", "upstream_5xx")
    assert (claims["price"]["charged"], claims["price"]["refunded"]) == ("0", "0.01")


async def test_only_buyer_and_seller_see_it(gateway: RunningGateway, world: World) -> None:
    _, _, answer, _ = await bought(gateway, world)
    path = f"/receipts/{answer.headers['x-request-id']}"
    stranger = await world.agent()
    assert (await gateway.client.get(path, headers=stranger.headers)).status_code == 404
    assert (await gateway.client.get(path)).status_code == 401
    assert (await gateway.client.get("/receipts/nonsense", headers=stranger.headers)).status_code == 400


async def test_a_changed_receipt_does_not_verify(gateway: RunningGateway, world: World, tmp_path: Path) -> None:
    _, _, _, receipt = await bought(gateway, world)
    keys = (await gateway.client.get("/.well-known/jwks.json")).json()
    head, body, signature = receipt["receipt"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["price"]["charged"] = "1000"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"tollway-receipt+jwt"}').rstrip(b"=").decode()
    for wrong in (
        f"{head}.{forged}.{signature}",
        f"{unsigned}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        "x",
        "a.b.c",
    ):
        try:
            verify(wrong, keys)
        except ReceiptError:
            continue
        raise AssertionError(f"{wrong[:40]} verified")
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    for text, status in ((receipt["receipt"], 0), (f"{head}.{forged}.{signature}", 1)):
        (tmp_path / "receipt").write_text(text)
        command = [
            sys.executable,
            "-m",
            "gateway.cli.main",
            "receipt",
            "verify",
            str(tmp_path / "receipt"),
            "--jwks",
            str(tmp_path / "keys.json"),
        ]
        done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status
