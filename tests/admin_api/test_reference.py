"""The API reference for people: complete, well-formed, and nothing in it comes from another host."""

from __future__ import annotations

from html.parser import HTMLParser

from admin_api.kit.reference import page
from tests.admin_api.conftest import Api

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Collects what the test asks for, and fails on a tag that closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


async def test_the_reference_shows_every_operation_and_loads_nothing(api: Api) -> None:
    served = (await api.call("GET", "/openapi.json", expect=200)).json()
    answer = await api.call("GET", "/docs", expect=200)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    parsed = outline(answer.text)
    names = {one["operationId"] for item in served["paths"].values() for one in item.values()}
    assert names <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not parsed.tags & {"script", "iframe", "img", "link", "form"}
    for link in parsed.links:
        assert "//" not in link
        if link.startswith("#"):
            assert link[1:] in parsed.ids
        else:
            await api.call("GET", f"/{link}", expect=200)


def test_markup_in_a_description_stays_text() -> None:
    evil = "<script>alert(1)</script>\"'&"
    document = {
        "info": {"title": evil, "description": evil},
        "paths": {
            f"/{evil}": {
                "get": {
                    "tags": [evil],
                    "operationId": evil,
                    "summary": evil,
                    "description": evil,
                    "parameters": [{"name": evil, "in": "query", "schema": {"enum": [evil]}, "description": evil}],
                    "responses": {evil: {"description": evil}},
                }
            }
        },
    }
    parsed = outline(page(document))
    assert "script" not in parsed.tags
