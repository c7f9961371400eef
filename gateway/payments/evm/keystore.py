"""Signing keys through one door: the environment or an encrypted keystore file, never a log line.

    TOLLWAY_CHAIN_SIGNER_KEY                a private key in hex (development, or a secret store that fills variables)
    TOLLWAY_CHAIN_SIGNER_KEYSTORE           a Web3 Secret Storage file (version 3, scrypt or pbkdf2)
    TOLLWAY_CHAIN_SIGNER_PASSWORD_FILE      the file that holds its password; or TOLLWAY_CHAIN_SIGNER_PASSWORD

The buying wallet's key (purchases.py) has the same names with BUYER for SIGNER. A `Signer` shows its address and
nothing else, whatever prints it. The key's bytes stay inside libsecp256k1's object.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from coincurve import PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import show_address
from gateway.settings import SettingsError

SIGNER, BUYER = "TOLLWAY_CHAIN_SIGNER", "TOLLWAY_CHAIN_BUYER"
MAX_SCRYPT_MEMORY = 512 * 1024 * 1024
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class Signer:
    """One secp256k1 key. Public: `address` (20 bytes). `sign` takes a digest."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < ORDER:
            raise ValueError("not a secp256k1 private key")
        self._key = PrivateKey(secret)
        self.address = keccak_256(self._key.public_key.format(compressed=False)[1:])[12:]

    def sign(self, digest: bytes) -> bytes:
        """Return r, s (low) and the recovery id, 65 bytes, over a 32-byte digest."""
        return self._key.sign_recoverable(digest, hasher=None)  # pyright: ignore[reportUnknownMemberType]

    def __repr__(self) -> str:
        return f"Signer({show_address(self.address)})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not pickled or copied")


def load_signer(environ: Mapping[str, str] | None = None, prefix: str = SIGNER) -> Signer | None:
    """Return the key that a prefix names, by default the relayer's; None when none is configured.

    Raises SettingsError, which never shows a secret.
    """
    env = os.environ if environ is None else environ
    key, keystore = f"{prefix}_KEY", f"{prefix}_KEYSTORE"
    if env.get(key) and env.get(keystore):
        raise SettingsError(f"{key} and {keystore} are both set: keep one")
    if text := env.get(key):
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text.strip()):
            raise SettingsError(f"{key}='***': must be a private key of 64 hexadecimal digits")
        return _checked(key, bytes.fromhex(text.strip().removeprefix("0x")))
    if path := env.get(keystore):
        return _checked(keystore, open_keystore(_read(keystore, Path(path)), _password(env, prefix), keystore))
    return None


def open_keystore(document: bytes, password: str, setting: str = f"{SIGNER}_KEYSTORE") -> bytes:
    """Return the key in a Web3 Secret Storage document (version 3). Raises SettingsError naming the setting."""
    try:
        crypto: dict[str, Any] = {name.lower(): part for name, part in orjson.loads(document).items()}["crypto"]
        derived = _derive(crypto, password.encode(), setting)
        sealed = bytes.fromhex(crypto["ciphertext"])
        if not hmac.compare_digest(keccak_256(derived[16:32] + sealed).hex(), str(crypto["mac"]).lower()):
            raise SettingsError(f"{setting}: the password does not open this keystore")
        if crypto["cipher"] != "aes-128-ctr":
            raise SettingsError(f"{setting}: only aes-128-ctr is known")
        opener = Cipher(AES(derived[:16]), CTR(bytes.fromhex(crypto["cipherparams"]["iv"]))).decryptor()
        return opener.update(sealed) + opener.finalize()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{setting}: not a Web3 Secret Storage file (version 3)") from None


def _derive(crypto: dict[str, Any], password: bytes, setting: str) -> bytes:
    options: dict[str, Any] = crypto["kdfparams"]
    salt = bytes.fromhex(options["salt"])
    if crypto["kdf"] == "scrypt":
        return hashlib.scrypt(
            password, salt=salt, n=int(options["n"]), r=int(options["r"]), p=int(options["p"]), dklen=32,
            maxmem=MAX_SCRYPT_MEMORY,
        )  # fmt: skip
    if crypto["kdf"] == "pbkdf2" and options.get("prf") == "hmac-sha256":
        return hashlib.pbkdf2_hmac("sha256", password, salt, int(options["c"]), 32)
    raise SettingsError(f"{setting}: only scrypt and pbkdf2 (hmac-sha256) are known")


def _password(env: Mapping[str, str], prefix: str) -> str:
    file, plain = f"{prefix}_PASSWORD_FILE", f"{prefix}_PASSWORD"
    if path := env.get(file):
        return _read(file, Path(path)).decode(errors="replace").rstrip("\r\n")
    if plain in env:
        return env[plain]
    raise SettingsError(f"{prefix}_KEYSTORE needs {file} (or {plain})")


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}={path}: cannot be read ({error.strerror})") from None


def _checked(setting: str, secret: bytes) -> Signer:
    try:
        return Signer(secret)
    except ValueError:
        raise SettingsError(f"{setting}: what it holds is not a secp256k1 private key") from None
