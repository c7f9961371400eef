"""Publishers' credentials at rest: an AES-256-GCM envelope with key ids, so that keys can be rotated.

    version (1 byte, 1) | length of key id (1 byte) | key id | nonce (12 bytes) | ciphertext and tag

The context (for instance b"publisher:42:bearer") is authenticated but not stored: an envelope copied to another row
does not open there. The header is authenticated too. Not here: where envelopes are stored and to which upstream a
credential may be sent. Nonces are random: rotate a key long before it has sealed 2**32 credentials.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CredentialError(ValueError):
    """A credential cannot be sealed or opened. The message names key ids at most, never keys or plaintext."""


class NoKeys(CredentialError):
    """TOLLWAY_SECRET_KEYS is empty: credentials cannot be stored."""


class UnknownKey(CredentialError):
    """The envelope was sealed with a key that is no longer configured."""


class NotAuthentic(CredentialError):
    """The envelope was altered, belongs to another context, or its key id now names another key."""


class CredentialBox:
    """Seals with the first key, opens with any."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._first = next(iter(keys), None)

    @classmethod
    def from_setting(cls, keys: str) -> CredentialBox:
        """Make the box of settings.secrets.keys. Raises CredentialError."""
        return cls(parse_keys(keys))

    @property
    def key_ids(self) -> list[str]:
        """Return the ids of the configured keys, the current one first."""
        return list(self._ciphers)

    @property
    def current(self) -> str:
        """Return the id of the key that seals. Raises NoKeys."""
        if self._first is None:
            raise NoKeys("no secret key is configured; set TOLLWAY_SECRET_KEYS (`id:base64 of 32 bytes`)")
        return self._first

    @property
    def header(self) -> bytes:
        """Return what every envelope under the current key begins with, and no other. Raises NoKeys."""
        return _header(self.current)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Return an envelope under the first key, bound to `context`. Raises NoKeys."""
        header = self.header
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + self._ciphers[self.current].encrypt(nonce, plaintext, header + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the plaintext. Raises UnknownKey, NotAuthentic, or CredentialError for what is no envelope."""
        name, header, nonce, ciphertext = _split(sealed)
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UnknownKey(f"sealed with key {name}, which is not configured")
        try:
            return cipher.decrypt(nonce, ciphertext, header + context)
        except InvalidTag:
            raise NotAuthentic(f"does not open with key {name} in this context") from None


def parse_keys(keys: str) -> dict[str, bytes]:
    """Parse 'id:base64(32 bytes),id2:...'. Raises CredentialError naming the position, never the key."""
    parsed: dict[str, bytes] = {}
    for position, item in enumerate(filter(None, (part.strip() for part in keys.split(","))), start=1):
        name, colon, encoded = item.partition(":")
        if not colon or _KEY_ID.fullmatch(name) is None:
            raise CredentialError(f"secret key {position}: must be 'id:base64', id of letters, digits, '.', '_', '-'")
        if name in parsed:
            raise CredentialError(f"secret key {position}: the id {name} appears twice")
        parsed[name] = _decode(encoded, position, name)
    return parsed


def key_id_of(sealed: bytes) -> str:
    """Return the id of the key that an envelope is under. Raises CredentialError for what is no envelope."""
    return _split(sealed)[0]


def generate_key() -> str:
    """Return a new random key in the form that the setting takes after 'id:'."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode("ascii")


def _decode(encoded: str, position: int, name: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError(f"secret key {position} ({name}): not valid base64") from None
    if len(key) != _KEY_BYTES:
        raise CredentialError(f"secret key {position} ({name}): {len(key)} bytes, must be {_KEY_BYTES}")
    return key


def _header(name: str) -> bytes:
    encoded = name.encode("ascii")
    return bytes((_VERSION, len(encoded))) + encoded


def _split(sealed: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Return key id, header, nonce and ciphertext."""
    if len(sealed) < 2 or sealed[0] != _VERSION:
        raise CredentialError("not a credential envelope of a known version")
    start = 2 + sealed[1]
    name = sealed[2:start].decode("ascii", "replace")
    if len(sealed) < start + _NONCE_BYTES + _TAG_BYTES or _KEY_ID.fullmatch(name) is None:
        raise CredentialError("the credential envelope is truncated or malformed")
    middle = start + _NONCE_BYTES
    return name, sealed[:start], sealed[start:middle], sealed[middle:]
