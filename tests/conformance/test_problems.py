"""Every refusal of every operation is the same kind of problem: walked over the whole document, through a socket."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import httpx
import pytest

from admin_api.kit.edge import BODY_LIMIT, LARGE_LIMIT
from gateway.errors import every_problem
from tests.conformance.fuzz import OPERATOR_TOKEN, Known
from tests.conformance.shapes import METHODS
from tests.conformance.test_document import DOCUMENT, OPERATIONS
from tests.support.gateway import RunningGateway
from tests.support.world import Agent

KINDS = {f"/problems/{kind.name}": kind for kind in every_problem()}
JSON = {"Content-Type": "application/json"}
# The publisher's own paths: any method and any body is theirs.
PROXIED = {name for name, one in OPERATIONS.items() if "default" in one["responses"]}
# Whether there is a chain to settle on is said before anything is judged (tests/payments has one).
NO_RAIL = {"POST /payments/verify", "POST /payments/settle"}
WITH_JSON = [
    name
    for name, one in OPERATIONS.items()
    if "application/json" in one.get("requestBody", {}).get("content", {}) and name not in PROXIED | NO_RAIL
]
# Any other word there is a path of another operation, or none: 404 tells it.
WORDS_BESIDE = "/payments/{payment_id}"
SECURED = [name for name, one in OPERATIONS.items() if one["security"] and {} not in one["security"]]
# Whose slug it is not is told the same of one that exists and of one that does not: it is not his.
OF_SELLERS = {name for name in OPERATIONS if re.search(r"^\w+ /billing/publishers/{slug}/[^{]*$", name)}
IDS = {name: re.findall(r"\{(\w+)\}", name) for name in OPERATIONS}
# What comes back from an OAuth provider is told by its state, before anything else is looked at.
BY_STATE = {name for name in OPERATIONS if name.endswith("/callback")}


def check_problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """Whatever is refused is refused in one form."""
    assert answer.status_code == status, f"{name}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    kind = KINDS[problem["type"]]
    assert (problem["status"], problem["title"]) == (status, kind.title) == (kind.status, kind.title)
    assert problem["detail"].strip()
    assert problem["instance"] == answer.headers["x-request-id"]
    if status != 405:
        assert str(status) in OPERATIONS[name]["responses"], "this refusal is not declared"
    return problem


def body_of(name: str) -> dict[str, Any]:
    """Return the option that sends the operation's example, if it takes a body."""
    if name not in WITH_JSON:
        return {}
    return {"json": OPERATIONS[name]["requestBody"]["content"]["application/json"]["example"]}


class Walker:
    """Sends requests to operations by name."""

    def __init__(self, gateway: RunningGateway, known: Known, agent: Agent) -> None:
        self.gateway = gateway
        self.known = known
        self.agent = agent

    def path(self, name: str, /, **ids: str) -> str:
        """Return an operation's path with ids of what exists, or with others where they are given."""
        known = {
            "organization_id": self.known.organization,
            "publisher_id": self.known.publisher,
            "slug": self.known.slug,
            "request_id": self.known.receipt,
            "key_id": str(uuid4()),
            "log_id": str(uuid4()),
            "exchange_id": str(uuid4()),
            "wallet": f"agent:{uuid4()}",
            "endpoint_id": str(uuid4()),
            "charge_id": str(uuid4()),
            "payout_id": str(uuid4()),
            "id": str(uuid4()),
            "agent_wallet": "agent:not-found",
            "session_id": str(uuid4()),
            "member_id": str(uuid4()),
            "invite_id": str(uuid4()),
            "role_id": str(uuid4()),
            "provider_id": str(uuid4()),
            "plan_id": str(uuid4()),
            "webhook_id": str(uuid4()),
            "project_id": self.known.project,
            "ip_id": str(uuid4()),
            "delivery_id": str(uuid4()),
            "permission": "org.read",
            "provider": "not-found",
            "name": "not-found",
            "path": "x",
        }
        return name.partition(" ")[2].format_map({**known, **ids})

    async def send(self, name: str, path: str, *, key: bool = True, **options: Any) -> httpx.Response:
        by_operator = OPERATIONS.get(name, {}).get("x-permission") == "operator"
        token = OPERATOR_TOKEN if by_operator else self.agent.key
        headers = {**({"Authorization": f"Bearer {token}"} if key else {}), **options.pop("headers", {})}
        return await self.gateway.client.request(name.partition(" ")[0], path, headers=headers, **options)


@pytest.fixture
def walker(gateway: RunningGateway, known: Known, agent: Agent) -> Walker:
    return Walker(gateway, known, agent)


@pytest.mark.parametrize("name", SECURED)
async def test_no_credential_is_401(walker: Walker, name: str) -> None:
    body = body_of(name)
    answer = await walker.send(name, walker.path(name), key=False, **body)
    check_problem(answer, 401, name)
    assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("name", SECURED)
async def test_a_wrong_credential_is_401(walker: Walker, name: str) -> None:
    wrong = {"Authorization": f"Bearer seren_{'0' * 16}_{'A' * 43}"}
    body = body_of(name)
    check_problem(await walker.send(name, walker.path(name), headers=wrong, **body), 401, name)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, ids in IDS.items()
        if {*ids} - {"path", "organization_id", "permission"} and name not in BY_STATE  # nobody has what there is not
    ],
)
async def test_an_unknown_id_is_404(walker: Walker, name: str) -> None:
    """The last id of the path names nothing; whatever stands before it exists."""
    last = [one for one in IDS[name] if one != "path"][-1]
    status = 403 if name in OF_SELLERS else 404
    unknown = "no-such-thing" if last in ("slug", "name", "provider") else str(uuid4())
    options = body_of(name)
    check_problem(await walker.send(name, walker.path(name, **{last: unknown}), **options), status, name)


@pytest.mark.parametrize("name", [name for name, ids in IDS.items() if "organization_id" in ids])
async def test_an_organization_that_is_not_yours_or_not_at_all_is_403(walker: Walker, name: str) -> None:
    options = body_of(name)
    for organization in (walker.known.foreign_organization, str(uuid4())):
        answer = await walker.send(name, walker.path(name, organization_id=organization), **options)
        check_problem(answer, 403, name)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, ids in IDS.items()
        if any(one.endswith("_id") for one in ids) and WORDS_BESIDE not in name and name not in BY_STATE
    ],
)
@pytest.mark.parametrize("wrong", ["x", "0198c2a4-7d3e-7cc1-9a55-2f6f0f7a9e1", "%00", "%FF", "1" * 2_000])
async def test_a_malformed_id_is_400(walker: Walker, name: str, wrong: str) -> None:
    last = [one for one in IDS[name] if one.endswith("_id")][-1]
    options = body_of(name)
    problem = check_problem(await walker.send(name, walker.path(name, **{last: wrong}), **options), 400, name)
    assert last in [error["field"] for error in problem["errors"]]


@pytest.mark.parametrize("name", WITH_JSON)
@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"null", b"", b'{"a":1,"a":2}', b"\xff"])
async def test_a_body_that_is_no_json_object_is_400(walker: Walker, name: str, body: bytes) -> None:
    check_problem(await walker.send(name, walker.path(name), content=body, headers=JSON), 400, name)


@pytest.mark.parametrize("name", WITH_JSON)
@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_415(walker: Walker, name: str, kind: str) -> None:
    answer = await walker.send(name, walker.path(name), content=b"{}", headers={"Content-Type": kind})
    check_problem(answer, 415, name)
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize("name", [name for name in WITH_JSON if not name.endswith("/logo")])
async def test_a_large_body_is_413(walker: Walker, name: str) -> None:
    body = b'{"x":"' + b"x" * (LARGE_LIMIT if name.endswith("/import-openapi") else BODY_LIMIT) + b'"}'
    check_problem(await walker.send(name, walker.path(name), content=body, headers=JSON), 413, name)


def methods_of(path: str) -> set[str]:
    declared = {method.upper() for method in DOCUMENT["paths"][path] if method in METHODS}
    return declared | ({"HEAD"} if "GET" in declared else set())


NOT_ALLOWED = [
    (method, path)
    for path in DOCUMENT["paths"]
    if not path.startswith("/publishers/{slug}") and path != WORDS_BESIDE
    for method in {"PATCH", "DELETE", "OPTIONS", "PROPFIND"} - methods_of(path)
]


@pytest.mark.parametrize(("method", "path"), sorted(NOT_ALLOWED))
async def test_another_method_is_405_with_what_is_allowed(walker: Walker, path: str, method: str) -> None:
    answer = await walker.send(f"{method} {path}", walker.path(f"{method} {path}"))
    check_problem(answer, 405, path)
    assert set(answer.headers["allow"].split(", ")) == methods_of(path)


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize("value", ["-1", "x", "1e3", "99999999999999999999", "", "1.5", "%00"])
async def test_a_page_out_of_range_is_400(walker: Walker, name: str, value: str) -> None:
    paged = [one for one, op in OPERATIONS.items() if name in {each["name"] for each in op.get("parameters", [])}]
    assert len(paged) >= 3
    for one in paged:
        problem = check_problem(await walker.send(one, f"{walker.path(one)}?query=x&{name}={value}"), 400, one)
        assert problem["errors"][0]["field"] == name


@pytest.mark.parametrize(
    "path", ["/nothing", "/wallet", "/wallet/balance/", "/publishers/", "/organizations//publishers", "/%00"]
)
async def test_an_unknown_path_is_404(walker: Walker, path: str) -> None:
    answer = await walker.send("GET /", path)
    assert answer.status_code == 404, answer.text
    assert answer.json()["type"] == "/problems/not-found"


async def test_the_paid_path_refuses_in_the_same_form(walker: Walker) -> None:
    get, post = "GET /publishers/{slug}/{path}", "POST /publishers/{slug}/{path}"
    check_problem(await walker.send(get, "/publishers/no-such-shop/x"), 404, get)
    check_problem(await walker.send(get, "/publishers/mine/a/%2e%2e/b"), 400, get)
    check_problem(await walker.send(get, "/publishers/mine/" + "x" * 20_000), 414, get)
    wrong = {"Authorization": f"Bearer seren_{'0' * 16}_{'A' * 43}"}
    check_problem(await walker.send(post, "/publishers/mine/x", headers=wrong, content=b"x"), 401, post)


async def test_402_is_x402s_own_form(walker: Walker, gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/publishers/mine/x")
    assert answer.status_code == 402
    assert re.match(r"application/json", answer.headers["content-type"])
    assert answer.json()["x402Version"] == 2
    assert "type" not in answer.json()


@pytest.mark.parametrize("path", ["/publishers/mine/x", "/publishers/no-such-shop/x", "/nothing", "/wallet/balance"])
async def test_the_answer_to_a_refused_upload_arrives(gateway: RunningGateway, known: Known, path: str) -> None:
    """A connection closed over unread bytes is reset, and takes the answer with it; not every time, so several times."""
    assert known.slug == "mine"
    statuses = {(await gateway.client.post(path, content=b"x" * 1_000_000)).status_code for _ in range(8)}
    assert statuses in ({402}, {404}, {405})
