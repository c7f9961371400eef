"""No spelling of a path is cheaper than another, and none leaves the publisher's base path."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.endpoints import Endpoint, EndpointTable
from gateway.catalog.readings import AmbiguousPath, read_path

CHEAP = Endpoint("GET", "/v1/items", 10)
DEAR = Endpoint("GET", "/v1/reports/{id}", 1_000)
SPECIAL = Endpoint("GET", "/v1/reports/free", 1)
POST = Endpoint("POST", "/v1/items", 50)
TABLE = EndpointTable([CHEAP, DEAR, SPECIAL, POST])


def found(path: bytes, method: str = "GET") -> set[Endpoint | None]:
    return set(TABLE.match(method, read_path(path)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/items", {CHEAP}),
        (b"/v1/reports/7", {DEAR}),
        (b"/v1/reports/free", {SPECIAL}),
        (b"/v1/unknown", {None}),
        (b"", {None}),
        (b"/v1/reports", {None}),
        (b"/v1/reports/7/8", {None}),
    ],
)
def test_plain_paths_name_one_endpoint(path: bytes, expected: set[Endpoint | None]) -> None:
    assert found(path) == expected


def test_methods_are_told_apart_and_head_is_get() -> None:
    assert found(b"/v1/items", "POST") == {POST}
    assert found(b"/v1/items", "HEAD") == {CHEAP}
    assert found(b"/v1/items", "DELETE") == {None}


@pytest.mark.parametrize(
    "path",
    [
        b"/V1/reports/7", b"/v1/Reports/7", b"/v1//reports/7", b"//v1/reports/7", b"/v1/reports/7/", b"/v1/reports;x=1/7",
        b"/v1/%72eports/7", b"/v1/%2572eports/7", b"/v1%2Freports%2F7", b"/v1\\reports\\7", b"/v1/reports%5c7",
        b"/v1/reports/7;jsessionid=1", b"/v1/reports/%2e%2e%2ehidden",
    ],
)  # fmt: skip
def test_every_spelling_of_the_dear_endpoint_counts_as_the_dear_one(path: bytes) -> None:
    assert DEAR in found(path)


def test_a_spelling_that_looks_like_the_cheap_one_still_counts_as_the_dear_one() -> None:
    """For a case-sensitive upstream /v1/reports/FREE is report "FREE", which is dear."""
    assert found(b"/v1/reports/FREE") == {DEAR, SPECIAL}
    assert found(b"//v1/reports/FREE") == {None, DEAR, SPECIAL}


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/reports/7%2Fadmin%2Fdelete", b"/v1/reports/7%5Cadmin", b"/v1/reports/7\\admin", b"/v1/reports/7%252Fadmin",
        b"//v1/items", b"/v1//items", b"/V1/items", b"/v1/items;x=1", b"/v1/items%3Fx", b"/v1/items%23", b"/v1/items.",
        b"/v1/items%20", b"/v1/%69tems%2F..", b"/v1%2Fitems%2Fx", b"/v1/reports/%2F7", b"/v1/reports/",
    ],
)  # fmt: skip
def test_a_path_that_some_upstream_reads_as_another_one_is_not_documented_by_all(path: bytes) -> None:
    try:
        reading = read_path(path)
    except AmbiguousPath:
        return
    assert None in TABLE.match("GET", reading)


@pytest.mark.parametrize(
    "path", [b"/v1/reports/AB-7", b"/v1/reports/a%20b", b"/v1/reports/%C3%A9", b"/v1/items/", b"/v1/%69tems"]
)
def test_an_honest_path_is_documented_in_every_reading(path: bytes) -> None:
    assert None not in found(path)


def test_mixed_readings_count() -> None:
    """An upstream that collapses // and keeps %2F inside of a name reads report "7/x"."""
    assert DEAR in found(b"//v1/reports/7%2Fx")
    assert DEAR in found(b"/v1/r%2565ports/7%2Fx")


def test_documented_capitals_hold_for_small_letters_as_well() -> None:
    table = EndpointTable([Endpoint("GET", "/Admin", 500), Endpoint("GET", "/admin/{id}/", 5)])
    assert {one and one.price for one in table.match("GET", read_path(b"/admin"))} == {None, 500}
    assert [one and one.price for one in table.match("GET", read_path(b"/admin/7"))] == [5]
    assert [one and one.price for one in table.match("GET", read_path(b"/Admin"))] == [500]


@pytest.mark.parametrize(
    "path",
    [
        b"/..", b"/.", b"/v1/..", b"/v1/../x", b"/v1/./x", b"/%2e%2e/x", b"/%2E./x", b"/.%2e/x", b"/%252e%252e/x",
        b"/v1/..%2fx", b"/v1/..%5cx", b"/v1\\..\\x", b"/v1/..;/x", b"/v1/..;a=b/x", b"/v1/%00", b"/x%", b"/x%zz", b"/x%2",
        b"/%25252525252e", b"/a%252541", b"/v1/..%3fx", b"/v1/..%23", b"/v1/%20../x", b"/%41" + b"/a" * 200,
    ],
)  # fmt: skip
def test_climbing_and_broken_escapes_are_refused(path: bytes) -> None:
    with pytest.raises(AmbiguousPath):
        read_path(path)


@pytest.mark.parametrize("path", [b"/a..b", b"/...", b"/.well-known/x", b"/a.b/c", b"/%C3%A9", b"/\xc3\xa9", b"/%FF"])
def test_what_only_looks_like_climbing_passes(path: bytes) -> None:
    read_path(path)


segment = st.text(string.ascii_lowercase + string.digits + "-_.~", min_size=1, max_size=6).filter(
    lambda text: not text.startswith(".")
)


@given(st.lists(segment, min_size=1, max_size=4), st.data())
def test_any_disguise_of_a_documented_path_still_names_it(segments: list[str], data: st.DataObject) -> None:
    endpoint = Endpoint("GET", "/" + "/".join(segments), 7)
    table = EndpointTable([endpoint])
    disguised = b""
    for part in segments:
        disguised += data.draw(st.sampled_from([b"/", b"//", b"/;x/", b"%2f", b"\\"]) if disguised else st.just(b"/"))
        for character in part:
            way = data.draw(st.sampled_from(["plain", "escaped", "twice", "upper"]))
            code = f"%{ord(character):02x}"
            disguised += {
                "plain": character, "escaped": code, "twice": code.replace("%", "%25"), "upper": character.upper()
            }[way].encode()  # fmt: skip
    assert endpoint in table.match("GET", read_path(disguised))


@given(st.binary(max_size=40))
def test_no_accepted_path_has_a_dot_segment_in_any_decoding(raw: bytes) -> None:
    path = b"/" + raw.replace(b"\0", b"").replace(b"?", b"")
    try:
        reading = read_path(path)
    except AmbiguousPath:
        return
    assert not {".", ".."} & {segment for segments in reading.exact for segment in segments}
