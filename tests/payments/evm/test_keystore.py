"""Signing keys come in by one door and never go out."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from gateway.eip55 import keccak_256
from gateway.payments.evm.keystore import Signer, load_signer
from gateway.settings import SettingsError

# The pbkdf2 test vector of Web3 Secret Storage, version 3.
SECRET = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
PASSWORD = "testpassword"
PBKDF2 = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144, "dklen": 32, "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "version": 3,
}  # fmt: skip


def scrypt_keystore() -> dict[str, object]:
    """As geth writes them (n 2^18 there). The standard's own scrypt vector has r = 1, which RFC 7914 forbids with its n."""
    derived = hashlib.scrypt(PASSWORD.encode(), salt=b"s" * 32, n=2**14, r=8, p=1, dklen=32)
    locker = Cipher(AES(derived[:16]), CTR(b"i" * 16)).encryptor()
    sealed = locker.update(bytes.fromhex(SECRET)) + locker.finalize()
    return {
        "Crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": (b"i" * 16).hex()},
            "ciphertext": sealed.hex(),
            "kdf": "scrypt",
            "kdfparams": {"dklen": 32, "n": 2**14, "r": 8, "p": 1, "salt": (b"s" * 32).hex()},
            "mac": keccak_256(derived[16:] + sealed).hex().upper(),
        },
        "version": 3,
    }


ADDRESS = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b"


def keystore(tmp_path: Path, document: object, password: str = PASSWORD) -> dict[str, str]:
    file, secret = tmp_path / "key.json", tmp_path / "password"
    file.write_text(json.dumps(document))
    secret.write_text(password + "\n")
    return {"TOLLWAY_CHAIN_SIGNER_KEYSTORE": str(file), "TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE": str(secret)}


@pytest.mark.parametrize("document", [PBKDF2, scrypt_keystore()])
def test_a_keystore_opens_with_its_password(document: dict[str, object], tmp_path: Path) -> None:
    signer = load_signer(keystore(tmp_path, document))
    assert repr(signer) == f"Signer({ADDRESS})"
    variables = keystore(tmp_path, document)
    del variables["TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE"]
    assert repr(load_signer({**variables, "TOLLWAY_CHAIN_SIGNER_PASSWORD": PASSWORD})) == f"Signer({ADDRESS})"


def test_a_key_from_the_environment_is_the_same_with_and_without_0x() -> None:
    for text in (SECRET, "0x" + SECRET, SECRET.upper()):
        assert repr(load_signer({"TOLLWAY_CHAIN_SIGNER_KEY": text})) == f"Signer({ADDRESS})"
    assert load_signer({}) is None


@pytest.mark.parametrize(
    ("document", "password", "message"),
    [
        (PBKDF2, "wrong", "the password does not open"),
        ({}, PASSWORD, "not a Web3 Secret Storage file"),
        ([], PASSWORD, "not a Web3 Secret Storage file"),
        ({"crypto": {**PBKDF2["crypto"], "kdf": "md5"}}, PASSWORD, "only scrypt and pbkdf2"),
        ({"crypto": {**PBKDF2["crypto"], "cipher": "aes-256-gcm"}}, PASSWORD, "only aes-128-ctr"),
        ({"crypto": {**PBKDF2["crypto"], "mac": 5}}, PASSWORD, "the password does not open"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_secret(
    document: object, password: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_signer(keystore(tmp_path, document, password))
    assert password not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["12", "0x" + "0" * 64, "0x" + "f" * 64, SECRET[:-1] + "g", SECRET + "00"])
def test_a_wrong_key_is_not_shown(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_signer({"TOLLWAY_CHAIN_SIGNER_KEY": text})
    assert text not in str(caught.value)


def test_two_keys_are_one_too_many_and_a_keystore_needs_a_password(tmp_path: Path) -> None:
    variables = keystore(tmp_path, PBKDF2)
    with pytest.raises(SettingsError, match="both set"):
        load_signer({**variables, "TOLLWAY_CHAIN_SIGNER_KEY": SECRET})
    with pytest.raises(SettingsError, match="needs TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE"):
        load_signer({"TOLLWAY_CHAIN_SIGNER_KEYSTORE": variables["TOLLWAY_CHAIN_SIGNER_KEYSTORE"]})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_signer({**variables, "TOLLWAY_CHAIN_SIGNER_KEYSTORE": str(tmp_path / "none")})


def test_a_signer_shows_and_copies_nothing_but_its_address() -> None:
    signer = Signer(bytes.fromhex(SECRET))
    for shown in (repr(signer), str(signer), f"{signer!r:>80}", str(getattr(signer, "__dict__", ""))):
        assert SECRET not in shown.lower()
    for steal in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            steal(signer)
