"""What an endpoint requires is asked for before anything is paid or sent."""

from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

SEARCH = {
    "method": "GET", "path": "/search", "required_headers": ["X-Units"],
    "query_params": [{"name": "q", "required": True}, {"name": "page"}],
}  # fmt: skip


async def test_a_call_without_what_its_endpoint_requires_is_refused_for_nothing(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, endpoints=[SEARCH])
    missing = {
        "/search": ["X-Units", "q"],
        "/search?Q=1&page=2": ["X-Units", "q"],
        "/search?q=1": ["X-Units"],
    }
    for target, names in missing.items():
        answer = await gateway.client.get(f"/publishers/{shop.slug}{target}", headers=agent.headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-request")
        assert [error["field"] for error in answer.json()["errors"]] == names
    assert upstream.calls == 0
    assert await world.balance(agent) == 1_000_000
    for target in ("/search?%71=", "/other"):  # there, if empty; and nothing is asked of what is not documented
        answer = await gateway.client.get(
            f"/publishers/{shop.slug}{target}", headers={**agent.headers, "x-units": "metric"}
        )
        assert answer.status_code == 200
    assert await world.balance(agent) == 980_000
