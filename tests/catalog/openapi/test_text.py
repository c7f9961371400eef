"""Documents are read as plain values, and hostile text is refused before it costs anything."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.openapi import text
from gateway.catalog.openapi.refused import DocumentRefused
from gateway.catalog.openapi.text import MAX_DOCUMENT, MAX_NODES, read_document

BILLION_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ('{"a": [1, 2.5, null, true, "é"]}', {"a": [1, 2.5, None, True, "é"]}),
        ("a: 1\nb: [x, 'y']\nc: {d: ~}\n", {"a": 1, "b": ["x", "y"], "c": {"d": None}}),
        ("on: yes\nday: 2026-01-30\nclock: 12:30:45\n", {"on": "yes", "day": "2026-01-30", "clock": "12:30:45"}),
        ("200: ok\n'201': made\n1.5: x\n", {"200": "ok", "201": "made", "1.5": "x"}),
        ("a: '1'\nb: !!str 1\nc: |\n  1\n", {"a": "1", "b": "1", "c": "1\n"}),
        ("a: 012\nb: 0x1F\nc: 1_000\nd: -3\ne: 1e3\n", {"a": 12, "b": "0x1F", "c": "1_000", "d": -3, "e": 1000.0}),
        ("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n", {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}),
        ("\ufeffa: 1", {"a": 1}),
        ("{a: 1, b: {c: 2}}", {"a": 1, "b": {"c": 2}}),
        ("{}", {}),
    ],
)
def test_json_and_yaml_are_read_as_plain_values(raw: str, value: dict[str, Any]) -> None:
    assert read_document(raw.encode()) == value


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (BILLION_LAUGHS, f"more than {MAX_NODES} values"),
        ("a: &a x\nb: [" + ",".join(["*a"] * (MAX_NODES + 1)) + "]", f"more than {MAX_NODES} values"),
        ("a: &a [*a]", "alias of something that is not complete"),
        ("a: *nothing", "alias of something that is not complete"),
        ("a: " + "[" * 100 + "]" * 100, "deeper than 64"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "64 levels"),
        ('{"a":' * 100_000, "deeper than 64"),
        ("a: &a " + "[" * 40 + "1" + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "deeper than 64"),
        ("a: !!python/object/apply:os.system [id]", "YAML tag"),
        ("a: !!binary aGk=", "YAML tag"),
        ("a: !!timestamp 2026-01-01", "YAML tag"),
        ("a: !thing {b: 1}", "YAML tag"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "line 3: has a merge key"),
        ("a: 1\na: 2", "line 2: has a key twice"),
        ('{"a": 1, "a": 2}', "the key a twice"),
        ("? [a]\n: 1", "key that is no plain text"),
        ("a: 1\n---\nb: 2", "more than one YAML document"),
        ("a: [1", "neither JSON nor YAML"),
        ('{"a": 1', "line 1, column 8: is no JSON"),
        ("a: \x01", "characters that YAML does not allow"),
        ('{"info": {"title": "Shop\\u001b[2J"}}', "a control character"),
        ('{"paths": {"/x\\u0007": {}}}', "a control character"),
        ('{"tags": ["a", "b\\u009b31m"]}', "a control character"),
        ('{"info": {"description": "half \\ud800"}}', "half a character"),
        ('a: "\\0"', "control character"),
        ('{"a\\u0000": 1}', "control character"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 5_000 + "}", "too many digits"),
        ("[1, 2]", "must be a JSON or YAML object"),
        ("", "must be a JSON or YAML object"),
    ],
)
def test_what_is_hostile_or_has_two_readings_is_refused(raw: str, says: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        read_document(raw.encode())
    assert says in refused.value.detail


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"a: \xe9"])
def test_text_is_utf_8(raw: bytes) -> None:
    with pytest.raises(DocumentRefused, match="not UTF-8"):
        read_document(raw)


def test_size_is_bounded_before_anything_is_read() -> None:
    with pytest.raises(DocumentRefused, match=f"more than {MAX_DOCUMENT} bytes"):
        read_document(b"x" * (MAX_DOCUMENT + 1))


scalars = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text("abc é:#'\"-[]{}\n", max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4), max_leaves=20)  # fmt: skip


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), values, max_size=4))
def test_both_readers_agree_on_what_is_json(value: dict[str, Any]) -> None:
    written = json.dumps(value, ensure_ascii=False)
    assert read_document(written.encode()) == value
    assert text._from_yaml(written) == value  # pyright: ignore[reportPrivateUsage]


@given(st.text(max_size=60) | st.text("a:-[]{}&*!|>'\"#%@,? \n1", max_size=60))
def test_any_text_is_read_or_refused(raw: str) -> None:
    with contextlib.suppress(DocumentRefused):
        assert isinstance(read_document(raw.encode("utf-8", "surrogatepass")), dict)
