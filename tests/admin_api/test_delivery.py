"""How owners choose timeouts, connections and refunded statuses: within bounds, shown to who may see them, in force."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog.delivery import REDIRECTS, DeliveryPolicy
from gateway.proxy.destination import Destinations
from gateway.settings import ProxySettings, SettingsError, load
from gateway.upstreams.http.timeouts import Timeouts, timeouts_of
from gateway.upstreams.origin import Lane
from tests.admin_api.conftest import Api, Clerk

CHOSEN = {
    "connect_timeout_seconds": 1.5,
    "first_byte_timeout_seconds": 20,
    "idle_timeout_seconds": 30.0,
    "total_timeout_seconds": 120.0,
    "max_connections": 7,
    "refund_on_status": ["4XX", "404", "307"],
    "charge_on_status": ["302", "307"],
}


async def test_choices_are_shown_to_owner_and_store_and_are_in_force(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, **CHOSEN)
    shown = {**CHOSEN, "refund_on_status": ["307", "404", "4xx"]}
    assert {name: made[name] for name in CHOSEN} == shown
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    assert {name: stored[name] for name in CHOSEN} == {**shown, "max_connections": None}
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    to = Destinations(api.services.settings, api.services.metrics, api.services.authenticate).find(compiled)
    assert to.timeouts == Timeouts(1.5, 20, 30, 120)
    assert to.lane == Lane(to.origin, made["slug"], 7)
    assert compiled.delivery.refunds.statuses == REDIRECTS - {302} | {307, *range(400, 500)}


async def test_null_goes_back_to_the_operators_default_and_what_is_not_named_stays(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, **CHOSEN)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    changes = {
        "idle_timeout_seconds": None,
        "max_connections": None,
        "refund_on_status": None,
        "charge_on_status": None,
    }
    after = (await api.call("PUT", path, owner.key, json=changes, expect=200)).json()["data"]
    assert (after["idle_timeout_seconds"], after["max_connections"]) == (None, None)
    assert (after["refund_on_status"], after["charge_on_status"]) == ([], [])
    assert after["total_timeout_seconds"] == 120.0
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    to = Destinations(api.services.settings, api.services.metrics, api.services.authenticate).find(compiled)
    assert (to.timeouts.idle, to.lane, compiled.delivery.refunds.statuses) == (60.0, to.origin, REDIRECTS)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("connect_timeout_seconds", 30.5, "is 30.5; this gateway allows 0.05 to 30 seconds"),
        ("first_byte_timeout_seconds", 0, "is 0; this gateway allows 0.05 to 600 seconds"),
        ("idle_timeout_seconds", -1, "is -1; this gateway allows 0.05 to 600 seconds"),
        ("total_timeout_seconds", 1e9, "this gateway allows 0.05 to 3600 seconds"),
        ("total_timeout_seconds", "60", "must be a number"),
        ("total_timeout_seconds", True, "must be a number"),
        ("max_connections", 0, "is 0; this gateway allows 1 to 1024 connections per worker"),
        ("max_connections", 1025, "is 1025; this gateway allows 1 to 1024 connections per worker"),
        ("max_connections", 2.5, "must be a whole number"),
        ("refund_on_status", ["200"], "has '200'; use statuses from"),
        ("charge_on_status", ["404"], 'has \'404\'; use statuses from "300" to "399" or the class "3xx"'),
        ("charge_on_status", ["200"], "has '200'"),
        ("refund_on_status", ["2xx"], "has '2xx'"),
        ("refund_on_status", ["40x"], "has '40x'"),
        ("refund_on_status", ["4040"], "has '4040'"),
        ("refund_on_status", ["٤٠٤"], "use statuses"),
        ("refund_on_status", "404", "must be a list"),
        ("refund_on_status", [str(status) for status in range(300, 400)], "at most 64 entries; use classes"),
    ],
)
async def test_what_is_out_of_bounds_is_named_with_the_bounds(
    api: Api, clerk: Clerk, field: str, value: Any, words: str
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers"
    for method, where, body in (
        ("POST", path, clerk.order(**{field: value})),
        ("PUT", f"{path}/{made['id']}", {field: value}),
    ):
        problem = (await api.call(method, where, owner.key, json=body, expect=400)).json()
        assert problem["errors"][0]["field"].partition(".")[0] == field
        assert words in problem["errors"][0]["message"]


def test_a_maximum_that_the_operator_lowered_later_holds_for_what_was_chosen_before() -> None:
    chosen = DeliveryPolicy(connect=25.0, first_byte=None, idle=500.0, total=3_000.0)
    lowered = ProxySettings(
        connect_timeout_max=10, idle_timeout_max=100, total_timeout=50, total_timeout_max=60, first_byte_timeout=9
    )
    assert timeouts_of(chosen, lowered) == Timeouts(10, 9, 100, 60)


def test_a_default_above_its_maximum_stops_the_start_and_says_which() -> None:
    with pytest.raises(SettingsError, match=r"total_timeout is 7200, more than total_timeout_max \(3600\)"):
        load({"TOLLWAY_PROXY_TOTAL_TIMEOUT": "7200"})
