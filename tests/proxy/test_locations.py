"""URLs of a publisher's server as its callers see them: a table of forms, friendly and hostile. Pure."""

from __future__ import annotations

import pytest

from gateway.proxy.locations import Asked, PublicPlace, links, location, refresh
from gateway.upstreams.origin import Origin

PLACE = PublicPlace(Origin("http", "10.0.0.5", 9000), b"/base/v2", b"/publishers/s", "api_key")
ROOT = PublicPlace(Origin("https", "api.example.com", 443), b"", b"/gw/publishers/s")
ASKED = Asked(b"/a/b", b"gw.example")

OWN = {
    b"http://10.0.0.5:9000/base/v2/items/?api_key=x&b=1#f": b"/publishers/s/items/?b=1#f",
    b"http://10.0.0.5:9000/base/v2/items?API%5Fkey=x": b"/publishers/s/items",
    b"//10.0.0.5:9000/base/v2/x": b"/publishers/s/x",
    b"https://10.0.0.5:9000/base/v2/x": b"/publishers/s/x",  # it was told that its caller came by https
    b"HTTP://10.0.0.5.:9000/base/v2/x": b"/publishers/s/x",
    b"http://167772165:9000/base/v2/x": b"/publishers/s/x",
    "http://１０.0.0.5:9000/base/v2/x".encode(): b"/publishers/s/x",
    b"http://user:secret@10.0.0.5:9000/base/v2/x": b"/publishers/s/x",
    b"/base/v2/items/": b"/publishers/s/items/",
    b" /base/v2": b"/publishers/s",
    b"/b%61se/v2/a": b"/publishers/s/a",
    b"/base/v2//x": b"/publishers/s//x",
    b"/base/v2/caf\xe9?\xff": b"/publishers/s/caf\xe9?\xff",
    b"/base/v2/a/../b/": b"/publishers/s/b/",
    b"/base/v2/a/%2E%2e": b"/publishers/s/",
    b"c": b"/publishers/s/a/c",
    b"./c?x": b"/publishers/s/a/c?x",
    b"../c": b"/publishers/s/c",
    b"../../../base/v2/c": b"/publishers/s/c",
    b"?page=2&api_key=z": b"?page=2",
    b"?api_key=z#top": b"#top",
    b"": b"",
    b"#f": b"#f",
    b"https://gw.example/base/v2/items/": b"/publishers/s/items/",
    b"https://GW.example/publishers/s/items/": b"/publishers/s/items/",
}
ELSEWHERE = [
    b"https://public.example/x?y=1#z", b"//cdn.example.com/a", b"http://93.184.216.34:8080/", b"https://u:p@public.example/",
    b"mailto:a@b.example", b"urn:isbn:1", b"app.example://callback?code=1", "https://bücher.example/".encode(),
]  # fmt: skip
HIDDEN = [
    b"/", b"/other", b"/base", b"/base/v22", b"../../c", b"http://10.0.0.5:9000/", b"http://10.0.0.5:9000",
    b"http://10.0.0.5:9000/base/v2/../admin", b"/base/v2/%2e%2E/admin", b"http://10.0.0.5:9001/base/v2/x",
    b"https://10.0.0.5/base/v2/x", b"ws://10.0.0.5:9000/base/v2/x", b"ftp://10.0.0.5/x",
    b"http://192.168.1.1/", b"http://127.0.0.1:1/", b"http://0x7f.1/", b"http://2130706433/", b"http://[::1]/",
    b"http://[::ffff:10.0.0.5]/", b"http://169.254.169.254/latest/meta-data", b"http://localhost/", b"http://a.localhost/",
    b"http://backend:8000/", b"http://db.internal/", b"http://printer.local./",
    b"/\\evil.example", b"\\\\evil.example\\x", b"http://a.example\\@10.0.0.5:9000/base/v2/", b"///evil.example/x",
    b"http:/x", b"https:x", b"ht\ttp://a.example/", b"/base/v2/\x01", b"/base/v2/a\x7f", b"//", b"http://", b"http://:80/",
    b"http://a@b@public.example/", b"http://public.example:port/", b"http://10.0.0.5%3a9000/base/v2/", b"http://\xff.example/",
    b"http://a b.example/", b"http://[public.example]/", b"http://1.2.3.4.5/", b"http://08/",
]  # fmt: skip


@pytest.mark.parametrize("url", OWN)
def test_what_is_below_the_base_is_a_path_of_the_gateway(url: bytes) -> None:
    assert location(url, PLACE, ASKED) == OWN[url]


@pytest.mark.parametrize("url", ELSEWHERE)
def test_other_public_places_pass_as_they_are(url: bytes) -> None:
    assert location(url, PLACE, ASKED) == url


@pytest.mark.parametrize("url", HIDDEN)
def test_what_is_private_or_unclear_is_not_shown(url: bytes) -> None:
    assert location(url, PLACE, ASKED) is None


def test_without_a_base_path_the_whole_server_is_below_it_on_both_usual_ports() -> None:
    for url in (b"http://api.example.com/x", b"https://API.example.com:443/x", b"http://api.example.com:80/x", b"x"):
        assert location(url, ROOT, Asked(b"", None)) == b"/gw/publishers/s/x"
    assert location(b"/", ROOT, Asked(b"", None)) == b"/gw/publishers/s/"
    assert location(b"http://api.example.com", ROOT, ASKED) == b"/gw/publishers/s/"
    assert location(b"/../..//x", ROOT, ASKED) == b"/gw/publishers/s//x"
    for url in (b"https://api.example.com:8443/x", b"http://api.example.com:443x/"):
        assert location(url, ROOT, ASKED) is None


def test_of_an_mcp_server_there_is_one_url_only() -> None:
    endpoint = PublicPlace(Origin("https", "mcp.example.com", 443), b"/mcp?k=1", b"/publishers/m", whole=False)
    for url in (b"/mcp/", b"https://mcp.example.com/mcp/", b"mcp/"):
        assert location(url, endpoint, ASKED) is None
    assert location(b"https://login.example.com/", endpoint, ASKED) == b"https://login.example.com/"


REFRESHES = {
    b"5": b"5",
    b"5;url=/base/v2/x": b"5; url=/publishers/s/x",
    b"0.5, URL = 'http://10.0.0.5:9000/base/v2/x' more": b"0.5; url=/publishers/s/x",
    b"5 https://public.example/": b"5; url=https://public.example/",
    b'5; url="/base/v2/x': b"5; url=/publishers/s/x",
    b"5; url=": b"5",
    b"5; url=http://10.0.0.5:9000/": None,
    b"5; url=https://public.example; url=http://10.0.0.5:9000/base/v2/": None,
    b"url=http://10.0.0.5:9000/": None,
    b"": None,
}


@pytest.mark.parametrize("value", REFRESHES)
def test_refresh(value: bytes) -> None:
    assert refresh(value, PLACE, ASKED) == REFRESHES[value]


LINKS = {
    b'<http://10.0.0.5:9000/base/v2/x?page=2>; rel="next", </base/v2/y>; rel=prev; title="a, <b>; anchor=x"':
        b'</publishers/s/x?page=2>; rel="next", </publishers/s/y>; rel=prev; title="a, <b>; anchor=x"',
    b"<http://10.0.0.5:9000/>; rel=up,<https://public.example/>;rel=x": b"<https://public.example/>;rel=x",
    b'</base/v2/a>;anchor="/base/v2/c";rel=x, </base/v2/a>; ANCHOR="http://10.0.0.5:9000/"':
        b'</publishers/s/a>; anchor="/publishers/s/c";rel=x',
    b"</base/v2/a>; rel=x; crossorigin,": b"</publishers/s/a>; rel=x; crossorigin",
    b"<?page=2>; rel=next": b"<?page=2>; rel=next",
    b"<>; rel=self": b"<>; rel=self",
    b"</admin>; rel=x": None,
    b"http://10.0.0.5:9000/": None,
    b"<a> <http://10.0.0.5:9000/>": None,
    b'<a>; title="b, <http://10.0.0.5:9000/>': None,
    b"<a": None,
    b"": None,
    b"<a>" + b" ;  " * 8_000 + b"<": None,
    b"<a>" + b'; x="' * 8_001: None,
    b"<" * 30_000: None,
}  # fmt: skip


@pytest.mark.parametrize("value", LINKS, ids=[value[:40] for value in LINKS])
def test_links(value: bytes) -> None:
    assert links(value, PLACE, ASKED) == LINKS[value]
