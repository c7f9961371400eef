"""`tollway wallet` and `tollway publisher`, run as an operator runs them, against a database of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from gateway.billing.charges import TERMS_OF
from gateway.database.pool import Connection
from gateway.ids import uuid7
from tests.support.dev import tollway
from tests.support.mcp_server import PublishersServer
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

KEYS = "k1:" + base64.b64encode(bytes(32)).decode()
SECRET = "do-not-print-93ab"
ORDER = {
    "name": "By Command",
    "slug": "by-command",
    "publisher_category": "integration",
    "api_url": "https://api.example.com",
    "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "wallet_network_id": "eip155:84532",
    "price_per_call": "0.01",
    "upstream_api_key": SECRET,
}


async def run(database_url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {"TOLLWAY_DATABASE_URL": database_url, "TOLLWAY_SECRET_KEYS": KEYS, **settings}
    return await asyncio.to_thread(tollway, *arguments, **env)


async def test_a_grant_is_shown_and_a_repeated_reference_grants_nothing(
    database_url: str, world: World, connection: Connection
) -> None:
    agent = await world.agent()
    name = await connection.fetchval("SELECT name FROM identity.account WHERE id = $1", agent.id)
    first = await run(database_url, "wallet", "grant", name, "$2.50", "--reference", "r1", "--note", "hello")
    assert (first.returncode, first.stdout.startswith("granted $2.50")) == (0, True), first.stderr
    again = await run(database_url, "wallet", "grant", str(agent.id), "2.50", "--reference", "r1")
    assert again.stdout.startswith("nothing granted")
    assert await world.balance(agent) == 2_500_000
    shown = await run(database_url, "wallet", "show", str(agent.id))
    assert "$2.50" in shown.stdout
    assert "admin_grant" in shown.stdout
    entries = await connection.fetch("SELECT * FROM audit.entry WHERE chain = $1", agent.organization_id)
    assert [(entry["action"], entry["actor_type"], entry["credential_type"]) for entry in entries] == [
        ("wallet.grant", "operator", "command_line")
    ]


async def test_wrong_grants_are_one_line(database_url: str, world: World) -> None:
    agent = await world.agent()
    for arguments in (
        ("grant", "nobody-here", "1"),
        ("grant", str(agent.id), "0"),
        ("grant", str(agent.id), "1.0000001"),
        ("grant", str(agent.id), "1e3"),
        ("grant", str(agent.id), "1", "--reference", ""),
        ("show", "01890000-0000-7000-8000-000000000001"),
    ):
        refused = await run(database_url, "wallet", *arguments)
        assert refused.returncode != 0
        assert refused.stderr.strip()
        assert "Traceback" not in refused.stderr
    assert await world.balance(agent) == 0


async def test_a_publisher_is_created_shown_switched_and_verified(
    database_url: str, world: World, tmp_path: Path
) -> None:
    owner = await world.agent()
    order = tmp_path / "order.json"
    order.write_text(json.dumps(ORDER))
    arguments = ("publisher", "create", "--file", str(order), "--organization", str(owner.organization_id))
    made = await run(database_url, *arguments)
    assert made.returncode == 0, made.stderr
    assert SECRET not in made.stdout + made.stderr
    document: dict[str, Any] = json.loads(made.stdout)
    assert document["pricing"][0]["price_per_call"] == "0.01"
    twice = await run(database_url, *arguments)
    assert (twice.returncode, "slug is taken" in twice.stderr) == (1, True)
    assert (await run(database_url, "publisher", "deactivate", "by-command")).stdout == "by-command is inactive\n"
    verified = await run(database_url, "publisher", "verify", document["id"])
    assert verified.stdout == "by-command is inactive, verified\n"
    assert (await run(database_url, "publisher", "activate", "by-command")).stdout == "by-command is active, verified\n"
    assert "by-command" in (await run(database_url, "publisher", "list")).stdout
    shown = json.loads((await run(database_url, "publisher", "show", "by-command")).stdout)
    assert (shown["is_verified"], shown["id"]) == (True, document["id"])
    revoked = await run(database_url, "publisher", "verify", "--revoke", "by-command")
    assert revoked.stdout == "by-command is active\n"


async def test_a_publisher_may_charge_agents_as_far_as_the_operator_says(
    database_url: str, world: World, connection: Connection
) -> None:
    shop = await world.publisher()
    name = ("publisher", "first-party", shop.slug)
    for wrong in (
        ("--max-charge", "5"),
        ("--max-charge", "5", "--daily", "4.99"),
        ("--max-charge", "0", "--daily", "1"),
    ):
        refused = await run(database_url, *name, *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    named = await run(database_url, *name, "--max-charge", "5.00", "--daily", "20")
    assert named.stdout.endswith("at most 5 USDC at once, 20 USDC of one agent in a day\n"), named.stderr
    assert (await TERMS_OF.one(connection, shop.id)).per_day == 20_000_000
    revoked = await run(database_url, *name, "--revoke")
    assert revoked.stdout == f"{shop.slug} may charge nobody directly\n"
    assert await TERMS_OF.first(connection, shop.id) is None
    entries = await connection.fetch("SELECT * FROM audit.entry WHERE resource_id = $1 ORDER BY seq", shop.id)
    assert [(entry["action"], entry["actor_type"]) for entry in entries] == [("publisher.first_party", "operator")] * 2


async def test_a_publishers_server_is_tried_and_the_exit_status_says_whether_calls_can_work(
    database_url: str, world: World, upstream: RecordingUpstream
) -> None:
    shop, gone = await world.publisher(), await world.publisher(api_url="http://127.0.0.1:1")
    reach = {"TOLLWAY_PROXY_ALLOW_ADDRESSES": "127.0.0.0/8"}
    fine = await run(database_url, "publisher", "test", shop.slug, "--path", "/status/204", **reach)
    assert (fine.returncode, fine.stdout.splitlines()[0]) == (0, "ok: answered. The server answered 204."), fine.stderr
    assert "first_byte" in fine.stdout
    assert upstream.requests[-1].request_line == "GET /status/204 HTTP/1.1"
    wrong = await run(database_url, "publisher", "test", str(gone.id), **reach)
    assert (wrong.returncode, wrong.stdout.startswith("failed: connect_failed. ")) == (1, True)
    guarded = await run(database_url, "publisher", "test", shop.slug)
    assert (guarded.returncode, guarded.stdout.startswith("failed: address_refused. ")) == (1, True)
    assert (await run(database_url, "publisher", "test", shop.slug, "--path", "x")).returncode == 2


async def test_an_mcp_server_is_tried_by_its_tools(
    database_url: str, world: World, mcp_server: PublishersServer
) -> None:
    shop = await world.publisher(integration_type="mcp", api_url=None, mcp_endpoint=mcp_server.url)
    reach = {"TOLLWAY_PROXY_ALLOW_ADDRESSES": "127.0.0.0/8"}
    fine = await run(database_url, "publisher", "test", shop.slug, **reach)
    assert fine.returncode == 0, fine.stdout + fine.stderr
    assert fine.stdout.startswith(
        "ok: answered. The server speaks MCP 2025-06-18 and lists 7 tools, 7 of them for sale."
    )
    wrong = await world.publisher(integration_type="mcp", api_url=None, mcp_endpoint=f"{mcp_server.url}/elsewhere")
    tried = await run(database_url, "publisher", "test", wrong.slug, **reach)
    assert (tried.returncode, tried.stdout.startswith("failed: not_mcp. The server answered 404")) == (1, True)


async def test_endpoints_are_imported_from_a_document(database_url: str, world: World, tmp_path: Path) -> None:
    shop = await world.publisher(wallet_address="0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
    document = tmp_path / "openapi.yaml"
    document.write_text("openapi: 3.1.0\npaths:\n  /a/{b}:\n    get: {x-payment-info: {price: '0.5'}}\n    trace: {}\n")
    dry = await run(database_url, "publisher", "import-openapi", shop.slug, str(document), "--dry-run")
    assert dry.stdout.splitlines() == [
        "GET           0.5  /a/{b}",
        "skipped #/paths/~1a~1{b}/trace: is a method that has no price",
        "nothing was changed; it would be 1 added, 0 changed, 0 removed",
    ], dry.stderr
    done = await run(database_url, "publisher", "import-openapi", shop.slug, str(document), "--replace")
    assert done.stdout.splitlines()[-1] == "1 added, 0 changed, 0 removed"
    again = await run(database_url, "publisher", "import-openapi", str(shop.id), str(document))
    assert again.stdout.splitlines()[-1] == "0 added, 0 changed, 0 removed"
    document.write_text("openapi: 3.1.0\npaths: {/x: {get: {x-payment-info: {price: 1}}}}")
    for source, word in (
        (str(document), "#/paths/~1x/get/x-payment-info: has a price that is no text"),
        (str(tmp_path / "none"), "cannot be read"),
        ("https://10.0.0.1/x", "cannot be fetched"),
    ):
        refused = await run(database_url, "publisher", "import-openapi", shop.slug, source)
        assert (refused.returncode, word in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)


async def test_a_bad_order_names_its_fields_without_values(database_url: str, world: World, tmp_path: Path) -> None:
    owner = await world.agent()
    order = tmp_path / "order.json"
    for text, word in (
        (json.dumps({**ORDER, "slug": "A", "upstream_api_key": f"{SECRET}\n"}), "slug: must be"),
        (json.dumps({**ORDER, "slug": "other", "price_per_call": "0.0000001"}), "price_per_call"),
        ("{", "not JSON"),
    ):
        order.write_text(text)
        refused = await run(
            database_url, "publisher", "create", "--file", str(order), "--organization", str(owner.organization_id)
        )
        assert refused.returncode == 1
        assert word in refused.stderr
        assert SECRET not in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "no publisher is called" in (await run(database_url, "publisher", "show", "nobody")).stderr


async def test_an_oauth_provider_becomes_the_platforms_with_its_servers(
    database_url: str, world: World, connection: Connection
) -> None:
    assert (await run(database_url, "oauth", "list")).stdout == "there are no OAuth providers\n"
    first, second = [await _provider(world, connection) for _ in range(2)]
    shared = await run(database_url, "oauth", "share", first, "--host", "API.example.com", "--host", "b.example.com")
    assert shared.stdout == "acme is the platform's; its tokens may go to api.example.com, b.example.com\n", (
        shared.stderr
    )
    for arguments in (
        ("share", first),
        ("share", first, "--host", "a b"),
        ("share", second, "--host", "b.example.com"),
    ):
        refused = await run(database_url, "oauth", *arguments)
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr
    listed = (await run(database_url, "oauth", "list")).stdout
    assert "of the platform  to api.example.com, b.example.com" in listed
    assert f"{second}  acme" in listed
    assert SECRET not in listed
    assert "gone" in (await run(database_url, "oauth", "remove", first)).stdout
    assert (await run(database_url, "oauth", "remove", first)).returncode == 1
    logged = await connection.fetch(
        "SELECT action, actor_type, credential_type FROM audit.entry WHERE resource_id = $1::text::uuid ORDER BY created_at",
        first,
    )
    assert [tuple(row) for row in logged] == [
        ("oauth_provider.update", "operator", "command_line"),
        ("oauth_provider.delete", "operator", "command_line"),
    ]


async def _provider(world: World, connection: Connection) -> str:
    owner, made = await world.agent(), str(uuid7())
    await connection.execute(
        "INSERT INTO oauth.provider (id, organization_id, slug, name, authorization_url, token_url, client_id,"
        " client_secret, scopes, pkce_required, token_endpoint_auth_method, created_by)"
        " VALUES ($1, $2, 'acme', 'Acme', 'https://a.example', 'https://a.example', 'x', $3, '{}', true, 'none', $4)",
        made, owner.organization_id, SECRET.encode(), owner.id,
    )  # fmt: skip
    return made
