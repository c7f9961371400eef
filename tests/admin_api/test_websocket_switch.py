"""Owners say whether their server speaks WebSocket; until they do, nobody is connected."""

from __future__ import annotations

from tests.admin_api.conftest import Api, Clerk


async def test_owners_switch_websockets_on_and_off(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    plain, talking = await clerk.publisher(owner), await clerk.publisher(owner, websocket_enabled=True)
    assert (plain["websocket_enabled"], talking["websocket_enabled"]) == (False, True)
    stored = (await api.call("GET", f"/publishers/{talking['slug']}", expect=200)).json()["data"]
    assert stored["websocket_enabled"] is True, "buyers see it"
    path = f"/organizations/{owner.organization_id}/publishers/{talking['id']}"
    for switch, expected in ((False, False), (True, True), (None, False)):
        after = (await api.call("PUT", path, owner.key, json={"websocket_enabled": switch}, expect=200)).json()["data"]
        compiled = api.services.catalog.find(talking["slug"])
        assert compiled is not None
        assert (after["websocket_enabled"], compiled.websocket) == (expected, expected)
    await api.call("PUT", path, owner.key, json={"websocket_enabled": "yes"}, expect=400)
