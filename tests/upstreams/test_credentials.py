"""Envelopes open only with their key, in their context, unaltered."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.credentials import (
    CredentialBox,
    CredentialError,
    NoKeys,
    NotAuthentic,
    UnknownKey,
    generate_key,
    key_id_of,
)

OLD, NEW = "k1:" + generate_key(), "k2:" + generate_key()
BOX = CredentialBox.from_setting(OLD)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_what_is_sealed_opens_in_its_context_only(plaintext, context):
    sealed = BOX.seal(plaintext, context)
    assert BOX.open(sealed, context) == plaintext
    assert BOX.open(BOX.seal(plaintext, context), context) == plaintext
    assert BOX.seal(plaintext, context) != sealed  # a nonce is never used twice
    with pytest.raises(NotAuthentic):
        BOX.open(sealed, context + b"x")


@given(st.binary(max_size=40), st.data())
def test_no_altered_bit_goes_unnoticed(plaintext, data):
    sealed = bytearray(BOX.seal(plaintext, b"row 1"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CredentialError):
        BOX.open(bytes(sealed), b"row 1")


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_a_clear_error(data):
    with pytest.raises(CredentialError):
        BOX.open(data, b"")


def test_no_prefix_of_an_envelope_opens():
    sealed = BOX.seal(b"secret", b"")
    for length in range(len(sealed)):
        with pytest.raises(CredentialError):
            BOX.open(sealed[:length], b"")


def test_the_header_does_not_move_into_the_context():
    """Bytes shifted between key id and context must not authenticate: the header carries the id's length."""
    key = generate_key()
    sealed = CredentialBox.from_setting(f"k:{key}").seal(b"x", b"k")
    forged = bytes((1, 2)) + b"kk" + sealed[3:]
    with pytest.raises(NotAuthentic):
        CredentialBox.from_setting(f"kk:{key}").open(forged, b"")


def test_rotation():
    sealed = BOX.seal(b"secret", b"row 1")
    rotated = CredentialBox.from_setting(f"{NEW}, {OLD}")
    assert rotated.open(sealed, b"row 1") == b"secret"
    assert (key_id_of(sealed), key_id_of(rotated.seal(b"secret", b"row 1"))) == ("k1", "k2")
    assert rotated.seal(b"", b"").startswith(rotated.header)
    assert (rotated.current, rotated.key_ids) == ("k2", ["k2", "k1"])
    with pytest.raises(UnknownKey, match="k2"):
        BOX.open(rotated.seal(b"secret", b"row 1"), b"row 1")
    with pytest.raises(NotAuthentic):
        CredentialBox.from_setting("k1:" + generate_key()).open(sealed, b"row 1")


def test_without_keys_nothing_is_sealed():
    box = CredentialBox.from_setting("")
    with pytest.raises(NoKeys, match="TOLLWAY_SECRET_KEYS"):
        box.seal(b"x", b"")
    with pytest.raises(UnknownKey):
        box.open(BOX.seal(b"x", b""), b"")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("k1", "key 1: must be 'id:base64'"),
        (":" + generate_key(), "key 1"),
        ("a b:" + generate_key(), "key 1"),
        (OLD + ",k2:!!!", r"key 2 \(k2\): not valid base64"),
        ("k1:" + base64.b64encode(b"short").decode(), "5 bytes, must be 32"),
        (OLD + "," + OLD, "appears twice"),
        ("x" * 65 + ":" + generate_key(), "key 1"),
    ],
    ids=["no colon", "no id", "space in the id", "not base64", "short", "twice", "long id"],
)
def test_wrong_settings_name_the_position_and_never_the_key(setting, message):
    with pytest.raises(CredentialError, match=message) as caught:
        CredentialBox.from_setting(setting)
    assert OLD[3:] not in str(caught.value)


def test_keys_are_32_random_bytes():
    assert len(base64.b64decode(generate_key(), validate=True)) == 32
    assert generate_key() != generate_key()
