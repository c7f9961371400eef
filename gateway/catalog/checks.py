"""Pure checks of single publisher fields. Each returns the value in normal form or raises ValueError with words for
the caller: never the value itself, which may be a secret.

They guard what is sent to upstreams later (a header with CR LF is request smuggling), what ends up in URLs and what
the database stores. What does not live here: rules between fields (requirements.py) and network checks (egress guard).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from gateway.catalog.vocabulary import MAX_HEADER_VALUE, MAX_HEADERS, MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_URL
from gateway.eip55 import is_checksummed

SLUG = re.compile(r"[a-z0-9-]{2,64}", re.ASCII)
# RFC 9110 section 5.6.2
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
# RFC 9110 section 5.5: visible characters, blanks and tabs inside; no CR, LF, NUL or other controls.
FIELD_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?", re.ASCII)
MEDIA_TYPE = re.compile(r"[!#$&^_.+0-9A-Za-z-]{1,64}/[!#$&^_.+0-9A-Za-z-]{1,64}(?:; ?[!-~]{1,100})?", re.ASCII)
EMAIL = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@[A-Za-z0-9.-]{1,189}\.[A-Za-z0-9-]{2,63}", re.ASCII)
QUERY_NAME = re.compile(r"[A-Za-z0-9_.~\[\]-]{1,128}", re.ASCII)
RESPONSE_PATH = re.compile(r"[A-Za-z0-9_$-]{1,64}(?:\.[A-Za-z0-9_$-]{1,64}|\[[0-9]{1,4}\]){0,15}", re.ASCII)
SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+", re.ASCII)
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}", re.ASCII)

# Fillers of Hangul and Braille: letters and a symbol by category, and blank.
INVISIBLE_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")

# Connection management belongs to the gateway (RFC 9110 section 7.6.1), and so do framing and routing.
GATEWAY_HEADERS = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "content-length", "expect",
    }
)  # fmt: skip
# The caller's own secrets with this gateway: no publisher may ask for them.
CALLER_HEADERS = frozenset(
    {"authorization", "cookie", "x-payment", "payment-signature", "x-agent-wallet", "proxy-authorization"}
)
PUBLIC_SECRETS = frozenset({"authorization", "cookie"})


def slug(value: str) -> str:
    """Return a publisher's slug."""
    if not SLUG.fullmatch(value):
        raise ValueError("must be 2 to 64 characters of a-z, 0-9 and -")
    if value == "suggest":
        raise ValueError('"suggest" is reserved')
    return value


def email(value: str) -> str:
    """Return an e-mail address in plain form."""
    if len(value) > 254 or not EMAIL.fullmatch(value) or ".." in value:
        raise ValueError("must be an e-mail address such as name@example.com")
    return value


def text(value: str, longest: int) -> str:
    """Return prose that the database can store and a terminal can show: tabs and line breaks, no other controls."""
    if len(value) > longest:
        raise ValueError(f"must be at most {longest} characters long")
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", value):
        raise ValueError("must not contain control characters")
    return value


def has_something_to_see(value: str) -> bool:
    """Return whether anything of a text shows: links of blanks, joiners and invisible letters have no words."""
    return any(unicodedata.category(char)[0] in "LNPS" and char not in INVISIBLE_LETTERS for char in value)


def one_of(value: str, words: Sequence[str]) -> str:
    """Return a word of a known vocabulary."""
    if value not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return value


def http_url(value: str) -> str:
    """Return an http(s) URL without user, password and fragment. Where it leads is the egress guard's to judge."""
    if len(value) > MAX_URL:
        raise ValueError(f"must be at most {MAX_URL} characters long")
    if re.search(r"[\s\\\x00-\x20\x7f]", value) or not value.isascii():
        raise ValueError("must not contain blanks, control characters, backslashes or non-ASCII characters")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be a URL such as https://api.example.com/v1")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password; use api_headers or upstream_api_key")
    if parts.fragment or value.endswith("#"):
        raise ValueError("must not have a fragment")
    return value


def base_url(value: str) -> str:
    """Return an upstream's base URL: paths of calls are appended to it, so it cannot have a query."""
    checked = http_url(value)
    if "?" in checked:
        raise ValueError("must not have a query; a key in the query goes into api_key_query_param")
    if any(part in (".", "..") for part in re.split(r"/|%2[fF]", urlsplit(checked).path.replace("%2e", "."))):
        raise ValueError('must not contain "." or ".." segments')
    return checked


def header_name(value: str) -> str:
    """Return a header name that a publisher may set."""
    if not TOKEN.fullmatch(value):
        raise ValueError("contains a header name that is not a token of RFC 9110")
    if value.lower() in GATEWAY_HEADERS:
        raise ValueError(f"must not set {value}: connection handling and framing are the gateway's")
    return value


def header_value(value: str) -> str:
    """Return a header value without anything that could end the header."""
    if len(value) > MAX_HEADER_VALUE:
        raise ValueError(f"has a header value of more than {MAX_HEADER_VALUE} characters")
    if value and not FIELD_VALUE.fullmatch(value):
        raise ValueError("has a header value with control, line-break or non-ASCII characters, or outer blanks")
    return value


def signing_key(value: str) -> str:
    """Return a shared secret, or a private key in PEM with real line breaks where they were written as \\n."""
    if not value.lstrip().startswith("-----BEGIN"):
        return header_value(value)
    lines = value.strip().replace("\\n", "\n").replace("\r\n", "\n").split("\n")
    if not all(line.isascii() and (line.isprintable() or not line) for line in lines):
        raise ValueError("is no private key in PEM")
    return "\n".join(lines) + "\n"


def headers(value: Any, *, public: bool) -> dict[str, str]:
    """Return a JSON object of header names and values. Public ones are part of answers: no credentials there."""
    if not isinstance(value, dict):
        raise ValueError("must be an object of header names and values")
    items = cast("dict[Any, Any]", value)
    if len(items) > MAX_HEADERS:
        raise ValueError(f"must have at most {MAX_HEADERS} headers")
    seen: dict[str, str] = {}
    for name, text in items.items():
        if not isinstance(text, str):
            raise ValueError("must have text values only")
        checked = header_name(str(name))
        if public and checked.lower() in PUBLIC_SECRETS:
            raise ValueError(f"must not carry {checked}: it is shown in answers; put it into api_headers")
        if checked.lower() in {other.lower() for other in seen}:
            raise ValueError(f"names {checked} twice")
        seen[checked] = header_value(text)
    return seen


def passthrough(values: list[str]) -> list[str]:
    """Return the names of the caller's headers that go upstream, each once."""
    names: dict[str, str] = {}
    for value in values:
        checked = header_name(value)
        if checked.lower() in CALLER_HEADERS:
            raise ValueError(f"must not name {checked}: it carries the caller's own secrets")
        names.setdefault(checked.lower(), checked)
    if len(names) > MAX_HEADERS:
        raise ValueError(f"must have at most {MAX_HEADERS} headers")
    return list(names.values())


def json_value(value: Any) -> Any:
    """Return a JSON value that is small and shallow enough to store and to answer with."""
    if depth(value) > MAX_JSON_DEPTH:
        raise ValueError(f"must not be nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        size = len(orjson.dumps(value))
    except (TypeError, ValueError):
        raise ValueError("must be plain JSON with integers of at most 64 bits") from None
    if size > MAX_JSON_BYTES:
        raise ValueError(f"must be at most {MAX_JSON_BYTES} bytes of JSON")
    return value


def depth(value: Any) -> int:
    """Return how deeply lists and objects are nested, without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict):
            children = list(cast("dict[str, Any]", item).values())
        elif isinstance(item, list):
            children = cast("list[Any]", item)
        else:
            continue
        deepest = max(deepest, level)
        waiting.extend((child, level + 1) for child in children)
    return deepest


def path_template(value: str) -> str:
    """Return an endpoint's path such as /v1/items/{id}."""
    if not value.startswith("/") or len(value) > 512:
        raise ValueError("must start with / and have at most 512 characters")
    if value == "/":
        return value
    names: set[str] = set()
    segments = value[1:].split("/")
    for position, segment in enumerate(segments):
        placeholder = PLACEHOLDER.fullmatch(segment)
        if placeholder is not None:
            if placeholder[1] in names:
                raise ValueError(f"names {{{placeholder[1]}}} twice")
            names.add(placeholder[1])
        elif segment == "" and position == len(segments) - 1:
            continue
        elif not SEGMENT.fullmatch(segment) or segment.lower().replace("%2e", ".") in (".", ".."):
            raise ValueError("must be plain segments or whole-segment placeholders such as /v1/items/{id}")
    return value


def path_shape(template: str) -> str:
    """Return a path with its placeholders' names removed: two templates of one shape match the same calls."""
    return PLACEHOLDER.sub("{}", template)


def wallet_address(value: str, network: str) -> str:
    """Return an address in the form of its network. Raises ValueError."""
    if not network.startswith("eip155:"):
        if not re.fullmatch(r"[0-9A-Za-z:._-]{8,128}", value):
            raise ValueError("is not an address")
        return value
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        raise ValueError("must be 0x and 40 hexadecimal digits on an eip155 network")
    digits = value[2:]
    if int(digits, 16) == 0:
        raise ValueError("must not be the zero address: money sent there is lost")
    if digits not in (digits.lower(), digits.upper()) and not is_checksummed(value):
        raise ValueError("has a wrong checksum (EIP-55); check for a typing error")
    return value
