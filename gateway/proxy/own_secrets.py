"""A publisher's own credentials, as they may stand in a field of its server's answers: such a field is not shown.

Servers echo what they were sent, in error texts, links and cookies. Looked for is the credential itself, without its
scheme (`Bearer`), in percent-encoding, base64 at any offset and hexadecimal digits. Pure. Not looked into are bodies,
which are the publisher's to answer for.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus

# Shorter values, and those of fields that hold no credential by their name, stand in answers for other reasons.
LEAST, LEAST_OF_OTHERS = 8, 20
ENOUGH = 48
_CREDENTIAL = re.compile(rb"auth|key|token|secret|passw|credential|cookie|session|signature", re.IGNORECASE)
_PUBLIC = frozenset(
    b"accept accept-encoding accept-language cache-control content-type origin referer user-agent".split()
)


def spellings_of(fields: Iterable[tuple[bytes, bytes]], key: bytes | None) -> tuple[bytes, ...]:
    """Return how the credentials in a publisher's fields, and its key in the query, may be spelt."""
    secrets = [key] if key is not None and len(key) >= LEAST else []
    for name, value in fields:
        least = LEAST if _CREDENTIAL.search(name) else LEAST_OF_OTHERS
        if name.lower() not in _PUBLIC:
            secrets += [part for part in _parts(value) if len(part) >= least]
    return tuple(dict.fromkeys(text for secret in secrets for text in spellings(secret)))


@lru_cache(maxsize=256)
def spellings(secret: bytes) -> tuple[bytes, ...]:
    """Return how one secret may be spelt. Of a long one, such as a signed token, its end says enough."""
    secret = secret[-ENOUGH:]
    percent = [spell(secret).encode() for spell in (quote, quote_plus, _quoted)]
    lower = [re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in percent]
    encoded = [_inner(encode, secret, at) for encode in (base64.b64encode, base64.urlsafe_b64encode) for at in range(3)]
    digits = binascii.hexlify(secret)
    return tuple(dict.fromkeys([secret, *percent, *lower, *encoded, digits, digits.upper()]))


def _quoted(secret: bytes) -> str:
    return quote(secret, safe="")


def _inner(encode: Callable[[bytes], bytes], secret: bytes, offset: int) -> bytes:
    """Return the digits that a secret has in base64 behind so many other bytes, whatever stands around it."""
    text = encode(bytes(offset) + secret).rstrip(b"=")
    ends = len(text) - 1 if (offset + len(secret)) % 3 else len(text)
    return text[(0, 2, 3)[offset] : ends]


def _parts(value: bytes) -> list[bytes]:
    """Return a credential, what stands behind its scheme, and for Basic the password."""
    scheme, _, rest = value.partition(b" ")
    rest = rest.strip()
    if not rest:
        return [value]
    parts = [value, rest]
    if scheme.lower() == b"basic":
        try:
            user = base64.b64decode(rest, validate=True)
        except ValueError:
            return parts
        parts += [user, user.partition(b":")[2]]
    return parts


def shows(values: bytes, secrets: tuple[bytes, ...]) -> bool:
    """Return whether any of the spellings stands in the values."""
    return any(secret in values for secret in secrets)
