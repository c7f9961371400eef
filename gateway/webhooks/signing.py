"""Standard Webhooks: the secret and the signature that receivers verify with the published libraries. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a fresh secret, as it is shown once."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(identity: str, moment: datetime, body: bytes, keys: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Return the three fields of a message, with one signature for each secret that is valid now."""
    seconds = str(int(moment.timestamp()))
    signed = f"{identity}.{seconds}.".encode() + body
    return [
        (b"webhook-id", identity.encode()),
        (b"webhook-timestamp", seconds.encode()),
        (b"webhook-signature", " ".join(f"v1,{_signature(key, signed)}" for key in keys).encode()),
    ]


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
