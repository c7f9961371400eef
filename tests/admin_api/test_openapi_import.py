"""Owners import what they sell from an OpenAPI document, given or fetched; nobody else can, and nothing is fetched that
must not be."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest

from admin_api.examples import REQUESTS
from gateway.settings import LimitSettings
from tests.admin_api.conftest import Api, Clerk, Member, close_api, open_api, settings_for

DOCUMENT = """
openapi: 3.1.0
info: {title: Weather, version: "1"}
servers: [{url: "https://api.example.com/v1"}]
paths:
  /towns/{town-id}:
    get:
      summary: The weather of a town
      parameters: [{name: unit, in: query, schema: {type: string}}]
      x-payment-info: {price: {mode: fixed, amount: "0.01", currency: USD}}
    head: {}
  /admin:
    post: {summary: Not for sale}
"""


def path_of(owner: Member, publisher_id: object) -> str:
    return f"/organizations/{owner.organization_id}/publishers/{publisher_id}/import-openapi"


async def test_a_dry_run_shows_what_an_import_would_make_and_the_import_makes_it(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    protected = {"method": "POST", "path": "/admin", "is_protected": True, "price": "9"}
    made = await clerk.publisher(owner, endpoints=[protected])
    dry = await api.call("POST", path_of(owner, made["id"]), owner.key, json={"document": DOCUMENT, "dry_run": True})
    would = dry.json()["data"]
    assert (would["dry_run"], would["added"], would["changed"], would["removed"]) == (True, 1, 1, 0)
    assert would["skipped"] == [{"place": "#/paths/~1towns~1{town-id}/head", "reason": "is sold with GET"}]
    before = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]["endpoints"]
    assert [endpoint["path"] for endpoint in before] == ["/admin"]

    done = await api.call("POST", path_of(owner, made["id"]), owner.key, json={"document": DOCUMENT}, expect=200)
    assert done.json()["data"] == {**would, "dry_run": False}
    shown = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]["endpoints"]
    assert shown == would["endpoints"]
    admin, town = shown
    assert (admin["is_protected"], admin["price"], admin["description"]) == (True, "9", "Not for sale")
    assert (town["method"], town["path"], town["price"]) == ("GET", "/towns/{town_id}", "0.01")
    sold = api.services.catalog.find(made["slug"])
    assert sold is not None
    assert sold.endpoints

    gone = await api.call(
        "POST", path_of(owner, made["id"]), owner.key, expect=200,
        json={"document": '{"openapi": "3.0.0", "paths": {}}', "replace": True},
    )  # fmt: skip
    assert (gone.json()["data"]["removed"], [one["path"] for one in gone.json()["data"]["endpoints"]]) == (
        1,
        ["/admin"],
    )


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "", "either document or url"),
        ({"document": "a: 1", "url": "https://example.com/x"}, "", "either document or url"),
        ({"document": "a: ["}, "document", "neither JSON nor YAML"),
        ({"document": "swagger: '2.0'"}, "document", "#/swagger: is Swagger 2.0"),
        (
            {"document": DOCUMENT.replace('"0.01"', "0.01")},
            "document",
            "#/paths/~1towns~1{town-id}/get/x-payment-info: has a price that is no text",
        ),
        ({"document": DOCUMENT.replace("0.01", "0.0000001")}, "document", "more than 6 digits"),
        ({"document": DOCUMENT.replace("USD", "EUR")}, "document", "currency"),
        ({"document": DOCUMENT, "dry_run": "yes"}, "dry_run", "must be true or false"),
        ({"document": 7}, "document", "string"),
        ({"url": "ftp://example.com/x"}, "url", "URL"),
        ({"url": "https://10.0.0.1/x"}, "url", "cannot be fetched"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url", "cannot be fetched"),
        ({"url": "http://example.com/openapi.json"}, "url", "must be https"),
        ({"url": "https://no-such-host.invalid/x"}, "url", "cannot be fetched"),
    ],
)
async def test_what_cannot_be_imported_is_refused_with_its_place(
    api: Api, clerk: Clerk, body: dict[str, Any], field: str, says: str
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    problem = (await api.call("POST", path_of(owner, made["id"]), owner.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == field
    assert says in problem["errors"][0]["message"]


async def test_only_who_may_change_the_publisher_imports(api: Api, clerk: Clerk) -> None:
    owner, stranger, viewer = await clerk.agent(), await clerk.agent(), await clerk.agent()
    await clerk.join(viewer, owner.organization_id, "viewer")
    made = await clerk.publisher(owner)
    body = {"document": DOCUMENT}
    await api.call("POST", path_of(owner, made["id"]), json=body, expect=401)
    for other in (stranger, viewer):
        await api.call("POST", path_of(owner, made["id"]), other.key, json=body, expect=403)
    await api.call("POST", path_of(owner, uuid4()), owner.key, json=body, expect=404)
    elsewhere = await clerk.publisher(stranger)
    await api.call("POST", path_of(owner, elsewhere["id"]), owner.key, json=body, expect=404)


async def test_a_document_above_the_usual_body_is_taken_and_one_above_its_own_bound_is_not(
    api: Api, clerk: Clerk
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    large = DOCUMENT + "#" * 1_500_000
    await api.call("POST", path_of(owner, made["id"]), owner.key, json={"document": large}, expect=200)
    too_large = DOCUMENT + "#" * 2_200_000
    await api.call("POST", path_of(owner, made["id"]), owner.key, json={"document": too_large}, expect=413)


async def test_the_example_makes_an_endpoint(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    body = REQUESTS["import_publisher_openapi"]
    done = (await api.call("POST", path_of(owner, made["id"]), owner.key, json=body, expect=200)).json()["data"]
    assert [endpoint["price"] for endpoint in done["endpoints"]] == ["0.01"]


class Site(BaseHTTPRequestHandler):
    """Serves the document at /openapi.yaml, and what a hostile server might."""

    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        where = {"/away": "http://10.0.0.1/x", "/round": "/round", "/on": "/openapi.yaml?a=b", "/nowhere": None}
        if self.path in where:
            self.send_response(302)
            if where[self.path]:
                self.send_header("Location", where[self.path] or "")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = 500 if self.path == "/broken" else 200
        content = b"x" * 3_000_000 if self.path == "/large" else DOCUMENT.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    Site.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_a_document_is_fetched_without_credentials_and_redirects_are_followed(
    api: Api, clerk: Clerk, site: str
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    body = {"url": f"{site}/on"}
    done = (await api.call("POST", path_of(owner, made["id"]), owner.key, json=body, expect=200)).json()["data"]
    assert done["added"] == 2
    assert [path for path, _ in Site.asked[-2:]] == ["/on", "/openapi.yaml?a=b"]
    for _, fields in Site.asked[-2:]:
        assert not fields.keys() & {"authorization", "cookie"}
        assert owner.key not in str(fields)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/away", "cannot be fetched"),
        ("/round", "leads on more than 3 times"),
        ("/nowhere", "302 without a Location"),
        ("/broken", "answered 500"),
        ("/large", "more than 2000000 bytes"),
    ],
)
async def test_a_server_that_leads_astray_is_left(api: Api, clerk: Clerk, site: str, path: str, says: str) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    problem = await api.call("POST", path_of(owner, made["id"]), owner.key, json={"url": site + path}, expect=400)
    assert says in problem.json()["errors"][0]["message"]


async def test_fetching_is_limited(api: Api, clerk: Clerk, database_url: str) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    strict, _ = await open_api(settings_for(database_url, limits=LimitSettings(connection_tests=1)))
    try:
        body = {"url": "https://10.0.0.1/x"}
        answers = await asyncio.gather(
            *(strict.call("POST", path_of(owner, made["id"]), owner.key, json=body) for _ in range(3))
        )
        assert sorted(answer.status_code for answer in answers) == [400, 429, 429]
        await strict.call("POST", path_of(owner, made["id"]), owner.key, json={"document": DOCUMENT}, expect=200)
    finally:
        await close_api(strict)
