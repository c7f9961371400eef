"""Payment headers: one spelling or a refusal that names the field; whatever the bytes, nothing but a refusal."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.x402 import v1, v2, wire
from gateway.payments.x402.reasons import PaymentRefused, Reason
from tests.payments.x402.shop import Payer, as_v1, header, offer

PAYMENT = Payer().payment(offer())


def refusal(data: bytes, version: int = 2) -> PaymentRefused:
    with pytest.raises(PaymentRefused) as refused:
        (v1 if version == 1 else v2).read_payment(data)
    return refused.value


def changed(path: str, value: Any) -> dict[str, Any]:
    """The payment with one value replaced; the path's parts are separated by slashes."""
    document = json.loads(json.dumps(PAYMENT))
    place = document
    *way, last = path.split("/")
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def test_the_payment_that_the_others_are_made_from_can_be_read() -> None:
    taken, terms = v2.read_payment(header(PAYMENT))
    assert taken.amount == terms.value == 10_000
    assert v1.read_payment(header(as_v1(PAYMENT)))[1] == terms


CLEAN = header(PAYMENT)
TEXT = json.dumps(PAYMENT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"A", "not padded base64"),
        (CLEAN.rstrip(b"=") + b"A", "base64"),
        (CLEAN[:100] + b"\n" + CLEAN[100:], "base64"),
        (CLEAN[:100] + b" " + CLEAN[100:], "base64"),
        (b" " + CLEAN, "base64"),
        (CLEAN + b"====", "base64"),
        (base64.urlsafe_b64encode(b'{"\xc3\xbf":"\xc3\xbf\xc3\xbf?>"}'), "base64"),
        (b"e31=", "not canonical base64"),  # {} with spare bits set
        (TEXT.encode(), "base64"),
        (header(TEXT.encode("utf-16")), "not UTF-8"),
        (header(b"\xff\xfe{}"), "not UTF-8"),
        (header(b'{"a":"\xc3"}'), "not UTF-8"),
        (header(b"\xef\xbb\xbf" + TEXT.encode()), "not JSON"),
        (header(TEXT.encode() + b"{}"), "not JSON"),
        (header(TEXT.replace('"x402Version": 2', '"x402Version": 2, "x402Version": 2').encode()), "not JSON"),
        (header(TEXT.replace('"value":', '"value": "1", "value":').encode()), "not JSON"),
        (header(TEXT.replace(": 120", ": 120.0").encode()), "not JSON"),
        (header(TEXT.replace(": 120", ": 1e2").encode()), "not JSON"),
        (header(TEXT.replace(": 120", ": NaN").encode()), "not JSON"),
        (header(TEXT.replace(": 120", ":" + "9" * 4400).encode()), "not JSON"),
        (header(b"[" * 60), "not JSON"),
        (header(b"[" * 65), "nested too deeply"),
        (header(b'{"a":' * 65), "nested too deeply"),
        (header(b"[]"), "must be a JSON object"),
        (header(b"null"), "must be a JSON object"),
        (header(b'"' + b"a" * 8192 + b'"'), "longer than 8192 bytes"),
        (b"A" * 8193, "longer than 8192 bytes"),
    ],
    ids=range(28),
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_one_strict_json_object_is_refused(data: bytes, words: str, version: int) -> None:
    refused = refusal(data, version)
    assert refused.reason is Reason.PAYLOAD
    assert words in refused.detail


AUTHORIZATION = "payload/authorization/"
NOT_AMOUNTS = ["", " 1", "1 ", "01", "00", "+1", "-1", "1.0", "1e3", "0x10", "1_000", "１", "½", "9" * 78, str(2**256),
               1, True, None, [], {}]  # fmt: skip
NOT_ADDRESSES = ["", "0x", "0X" + "a" * 40, "a" * 40, "0x" + "a" * 39, "0x" + "a" * 41, "0x" + "g" * 40,
                 "0x" + "a" * 40 + "\n", " 0x" + "a" * 40, "0x" + "a" * 38 + "à", "vitalik.eth", 0, None, []]  # fmt: skip
NOT_NONCES = [
    "",
    "0x",
    "0x1",
    "f" * 64,
    "0X" + "f" * 64,
    "0x" + "f" * 63,
    "0x" + "f" * 65,
    "0x" + "f" * 62 + " f",
    7,
    None,
]
NOT_SIGNATURES = ["", "0x", "0x1", "ab", "0X" + "ab" * 65, "0x" + "ab" * 64 + "a", "0x" + "zz" * 65, 1, None, {}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((AUTHORIZATION + name, value) for name in ("value", "validAfter", "validBefore") for value in NOT_AMOUNTS),
        *((AUTHORIZATION + name, value) for name in ("from", "to") for value in NOT_ADDRESSES),
        *((AUTHORIZATION + "nonce", value) for value in NOT_NONCES),
        *(("payload/signature", value) for value in NOT_SIGNATURES),
        *(("accepted/amount", value) for value in NOT_AMOUNTS),
        *(("accepted/asset", value) for value in NOT_ADDRESSES),
        *(("accepted/payTo", value) for value in NOT_ADDRESSES),
        *((f"accepted/{name}", value) for name in ("scheme", "network") for value in (1, None, [], True)),
        *((name, value) for name in ("payload", "accepted", "payload/authorization") for value in (1, None, [], "x")),
        *(("resource", value) for value in (1, [], "x", {}, {"url": 1})),
        *(("extensions", value) for value in (1, [], "x")),
        *((AUTHORIZATION + name, ...) for name in ("from", "to", "value", "validAfter", "validBefore", "nonce")),
        *((name, ...) for name in ("payload", "accepted", "payload/authorization", "payload/signature")),
        *((f"accepted/{name}", ...) for name in ("scheme", "network", "asset", "amount", "payTo")),
        *((name, "1") for name in ("extra", AUTHORIZATION + "extra", "payload/extra", "payload/permit2Authorization")),
    ],
)
def test_a_field_that_is_not_canonical_missing_or_unknown_is_refused_by_name(path: str, value: Any) -> None:
    refused = refusal(header(changed(path, value)))
    assert refused.reason is Reason.PAYLOAD
    name = path.rsplit("/", maxsplit=1)[-1]
    assert name in refused.detail or (name == "authorization" and "Authorization" in refused.detail)


@pytest.mark.parametrize("version", [0, 1, 3, "2", 2.5, True, None, [2], ...])
def test_another_version_is_refused_as_such(version: Any) -> None:
    document = header(changed("x402Version", version))
    refused = refusal(document)
    assert refused.reason is (Reason.PAYLOAD if version == 2.5 else Reason.VERSION)


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_version_1_wants_its_own(version: Any) -> None:
    assert refusal(header(as_v1(PAYMENT) | {"x402Version": version}), 1).reason is Reason.VERSION


def test_version_1_has_no_other_fields_and_no_permit2() -> None:
    assert "accepted" in refusal(header(as_v1(PAYMENT) | {"accepted": {}}), 1).detail
    for name in ("scheme", "network", "payload"):
        document = as_v1(PAYMENT)
        del document[name]
        assert name in refusal(header(document), 1).detail


def test_what_clients_add_to_their_echo_of_our_offer_is_let_be() -> None:
    document = changed("accepted/new", {"x": [1, None, True]})
    document["resource"]["tags"] = ["a"]
    document["extensions"] = {"a": {"info": {}}}
    assert v2.read_payment(header(document)) == v2.read_payment(header(PAYMENT))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1", "0x" + "a" * 40]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(PAYMENT)), inner, max_size=4)
    ),
    max_leaves=12,
)
PATHS = st.sampled_from(
    ["x402Version", "payload", "accepted", "resource", "extensions", "payload/signature", "payload/authorization"]
    + [f"{AUTHORIZATION}{name}" for name in PAYMENT["payload"]["authorization"]]
    + [f"accepted/{name}" for name in PAYMENT["accepted"]]
)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(base64.b64encode) | JSON.map(header))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for read in (v1.read_payment, v2.read_payment):
        with pytest.raises(PaymentRefused):
            read(data)


@given(PATHS, JSON | st.text(max_size=80) | st.from_regex(r"0x[0-9a-f]{0,130}"))
def test_no_value_anywhere_raises_anything_but_a_refusal(path: str, value: Any) -> None:
    document = changed(path, value)
    for read, data in ((v2.read_payment, document), (v1.read_payment, as_v1(document))):
        try:
            taken, terms = read(header(data))
        except PaymentRefused as refused:
            refused.detail.encode()  # can be sent to the payer
        else:
            assert len(terms.payer) == len(terms.payee) == 20
            assert len(terms.nonce) == 32
            assert 0 <= terms.value < 2**256
            assert taken.version in (1, 2)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text(), max_size=3), max_size=5))
def test_what_we_encode_is_what_clients_and_we_decode(document: dict[str, Any]) -> None:
    encoded = wire.encode(document)
    assert json.loads(base64.b64decode(encoded)) == document
    assert base64.b64decode(encoded).isascii()
    assert wire.decode(encoded) == document
