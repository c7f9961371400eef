"""Bytes on the way to a chain: RLP, ABI, addresses, signed transactions, revert reasons, fees."""

from __future__ import annotations

import pytest
from coincurve import PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.eip55 import keccak_256
from gateway.payments.evm import reasons
from gateway.payments.evm.encoding import (
    call_data,
    parse_address,
    parse_hex,
    parse_quantity,
    rlp,
    selector,
    show_address,
    tail,
    word,
)
from gateway.payments.evm.fees import GWEI, RelayPolicy, offer, raised
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.rpc import NodeRefused
from gateway.payments.evm.transaction import Call, Fees, sign

NESTED = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=6), max_leaves=20)


def decoded(data: bytes):
    item, rest = _decode(data)
    assert rest == b""
    return item


def _decode(data: bytes):
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    if first < 0xB8:
        return data[1 : first - 0x7F], data[first - 0x7F :]
    if first < 0xC0:
        size = first - 0xB7
        end = 1 + size + int.from_bytes(data[1 : 1 + size], "big")
        return data[1 + size : end], data[end:]
    size = max(first - 0xF7, 0)
    length = int.from_bytes(data[1 : 1 + size], "big") if size else first - 0xC0
    body, rest = data[1 + size : 1 + size + length], data[1 + size + length :]
    items = []
    while body:
        item, body = _decode(body)
        items.append(item)
    return items, rest


@given(NESTED)
def test_rlp_reads_back_as_it_was(item: object) -> None:
    assert decoded(rlp(item)) == item


@pytest.mark.parametrize(("number", "encoded"), [(0, "80"), (15, "0f"), (1024, "820400"), (127, "7f"), (128, "8180")])
def test_rlp_of_numbers_has_no_leading_zeros(number: int, encoded: str) -> None:
    assert rlp(number).hex() == encoded


def test_an_address_has_one_spelling_inside_and_any_case_outside() -> None:
    shown = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # from EIP-55
    forms = {parse_address(form) for form in (shown, shown.lower(), "0X" + shown[2:].upper())}
    assert len(forms) == 1
    assert show_address(forms.pop()) == shown


@pytest.mark.parametrize(
    "text", ["", "0x", "0x12", "0x" + "g" * 40, "0x" + "1" * 41, " 0x" + "1" * 40, "0x" + "１" * 40]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        parse_address(text)


@pytest.mark.parametrize("value", [None, 1, "", "1", "0x1g", "0x1", b"0x", {"a": 1}])
def test_hex_data_is_read_strictly(value: object) -> None:
    with pytest.raises(ValueError, match="not 0x-prefixed"):
        parse_hex(value)


@pytest.mark.parametrize("value", [None, 1, "", "0x", "-0x1", "0x" + "f" * 65, "1"])
def test_numbers_are_read_strictly(value: object) -> None:
    with pytest.raises(ValueError, match="not a 0x-prefixed"):
        parse_quantity(value)


def test_call_data_is_as_the_abi_says() -> None:
    assert selector("transfer(address,uint256)").hex() == "a9059cbb"
    assert call_data(b"\1\2\3\4", 7, b"\xaa" * 20, True, data=b"xyz").hex() == (
        "01020304"
        + f"{7:064x}"
        + "00" * 12
        + "aa" * 20
        + f"{1:064x}"
        + f"{128:064x}"
        + f"{3:064x}"
        + "78797a"
        + "00" * 29
    )
    assert tail(b"") == bytes(32)
    for wrong in (-1, 2**256):
        with pytest.raises(OverflowError):
            word(wrong)
    with pytest.raises(ValueError, match="20 or 32"):
        word(b"\0" * 21)


def test_a_signed_transaction_names_its_signer_and_its_chain() -> None:
    signer = Signer(b"\x46" * 32)
    signed = sign(signer, 84532, 9, Call(b"\x35" * 20, b"\x01\x02", 21_000), Fees(20 * GWEI, GWEI))
    assert signed.raw[0] == 2
    assert signed.hash == keccak_256(signed.raw)
    fields = decoded(signed.raw[1:])
    assert [int.from_bytes(field, "big") for field in fields[:5]] == [84532, 9, GWEI, 20 * GWEI, 21_000]
    assert fields[5:9] == [b"\x35" * 20, b"", b"\x01\x02", []]
    digest = keccak_256(b"\x02" + rlp(fields[:9]))
    signature = fields[10].rjust(32, b"\0") + fields[11].rjust(32, b"\0") + (fields[9] or b"\0")
    point = PublicKey.from_signature_and_message(signature, digest, hasher=None).format(compressed=False)
    assert keccak_256(point[1:])[12:] == signer.address


def _reverted(words: str) -> NodeRefused:
    return NodeRefused(3, "execution reverted", selector("Error(string)") + word(32) + tail(words.encode()))


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (_reverted("ERC20: transfer amount exceeds balance"), "insufficient_funds"),
        (_reverted("FiatTokenV2: authorization is used or canceled"), "invalid_exact_evm_nonce_already_used"),
        (_reverted("FiatTokenV2: authorization is expired"), "invalid_exact_evm_payload_authorization_valid_before"),
        (
            _reverted("FiatTokenV2: authorization is not yet valid"),
            "invalid_exact_evm_payload_authorization_valid_after",
        ),
        (_reverted("FiatTokenV2: invalid signature"), "invalid_exact_evm_payload_signature"),
        (_reverted("ECRecover: invalid signature 's' value"), "invalid_exact_evm_payload_signature"),
        (_reverted("Blacklistable: account is blacklisted"), "transaction_failed"),
        (NodeRefused(3, "reverted", selector("InvalidNonce()")), "invalid_exact_evm_nonce_already_used"),
        (NodeRefused(3, "reverted", selector("Error(string)") + b"\xff" * 99), "transaction_failed"),
        (NodeRefused(3, "reverted", selector("Error(string)")), "transaction_failed"),
        (NodeRefused(-32000, "execution reverted: transfer amount exceeds balance"), "insufficient_funds"),
    ],
)
def test_reverts_are_told_in_the_protocols_words(refused: NodeRefused, code: str) -> None:
    assert reasons.reason_of(refused) == code
    assert reasons.reverted(refused)


def test_a_complaint_about_the_request_is_no_revert() -> None:
    assert not reasons.reverted(NodeRefused(-32602, "invalid params"))


POLICY = RelayPolicy(max_fee=100 * GWEI, min_tip=1_000_000)


@given(st.integers(0, 200 * GWEI), st.integers(0, 200 * GWEI))
def test_an_offer_is_enough_for_now_and_never_over_the_cap(base_fee: int, tip: int) -> None:
    made = offer(base_fee, tip, POLICY)
    if made is None:
        assert base_fee + POLICY.min_tip > POLICY.max_fee
    else:
        assert base_fee + POLICY.min_tip <= made.max_fee <= POLICY.max_fee
        assert made.tip <= made.max_fee


@given(st.integers(1, 200 * GWEI), st.integers(1, 200 * GWEI), st.integers(0, 200 * GWEI))
def test_a_raise_is_what_nodes_ask_for_or_nothing(max_fee: int, tip: int, base_fee: int) -> None:
    last = Fees(max_fee, min(tip, max_fee))
    made = raised(last, base_fee, GWEI, POLICY)
    if made is None:
        assert max(last.max_fee * 9 // 8 + 1, last.tip) > POLICY.max_fee or base_fee > 0
    else:
        assert made.max_fee <= POLICY.max_fee
        assert made.max_fee * 10 >= last.max_fee * 11
        assert made.tip <= made.max_fee
        assert made.tip * 10 >= last.tip * 11
