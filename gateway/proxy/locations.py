"""URLs in fields of answers that lead to the publisher's own server: a caller can only go there through the gateway.

Below the publisher's base they become paths of the gateway (`Location: http://10.0.0.5:9000/v1/items/` is
`Location: /publishers/weather/items/`). Others of that server are not shown, nor are addresses that are no public ones:
they tell about a network that is not the caller's, or lead it into its own. URLs elsewhere pass as they are. What two
readers could take for two places is not shown either. Pure. Not here: which fields hold URLs (answer_fields.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus, unquote_to_bytes

from gateway.upstreams.addresses import numeric_host, refusal
from gateway.upstreams.egress import EgressRefused, canonical_host
from gateway.upstreams.origin import DEFAULT_PORTS, Origin

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_REFERENCE = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/]*))?(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:[^@]*@)?(?:\[([^\[\]@]*)\]|([^\[\]:@]*))(?::([0-9]{0,5}))?")
_DOT = re.compile(rb"\.|%2e", re.IGNORECASE)
_DOTS = re.compile(rb"(?:\.|%2e){1,2}", re.IGNORECASE)
# Names that mean something else, or nothing, outside of the network that they are of (RFC 6761, RFC 8375).
_INNER = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "localdomain", "home.arpa")

_REFRESH = re.compile(rb"[ \t]*([0-9.]+)[ \t]*(?:[;, \t][ \t]*(?:url[ \t]*=[ \t]*)?(.*))?", re.IGNORECASE | re.DOTALL)
# Possessive, so that no value makes the search slow.
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb'"(?:[^"\\]|\\.)*+"|[^\s";,<>]*+'
_PARAMETER = re.compile(rb"[ \t]*+;[ \t]*+(?:(%b)(?:[ \t]*+=[ \t]*+(%b))?+)?+" % (_NAME, _VALUE), re.DOTALL)
_LINK = re.compile(
    rb"[ \t,]*+<([^<>]*+)>((?:[ \t]*+;[ \t]*+(?:%b(?:[ \t]*+=[ \t]*+(?:%b))?+)?+)*+)[ \t]*+(?:,|$)" % (_NAME, _VALUE),
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class PublicPlace:
    """Where callers see a publisher's server: the URLs of `origin` below `base` are paths below `prefix`.

    `key_name` is the parameter that carries the publisher's key. `whole` is whether everything below the base can be
    called; an MCP server is one endpoint, to which no other URL leads.
    """

    origin: Origin
    base: bytes
    prefix: bytes
    key_name: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as its upstream sees it: its path below the base, and the host that it was told the caller had named."""

    path: bytes
    host: bytes | None


def location(url: bytes, place: PublicPlace, asked: Asked) -> bytes | None:
    """Return a URL as the caller may see it, None when it may not."""
    url = url.strip(b" \t")
    ends = min((at for at in (url.find(b"?"), url.find(b"#")) if at >= 0), default=len(url))
    head, tail = url[:ends], without_parameter(url[ends:], place.key_name)
    if b"\\" in head or _CONTROL.search(url) is not None:
        return None
    scheme, authority, path = _REFERENCE.fullmatch(head).groups()  # type: ignore[union-attr]
    if authority is None and scheme is not None:
        return None if scheme.lower() in (b"http", b"https") else url  # mailto:, urn:
    if authority is not None:
        return _absolute(url, scheme, authority, (path or b"/", tail), place, asked)
    if not path:
        return tail
    if not path.startswith(b"/"):
        path = (place.base + asked.path or b"/").rpartition(b"/")[0] + b"/" + path
    return _shown(path, tail, place)


def _absolute(
    url: bytes, scheme: bytes | None, authority: bytes, rest: tuple[bytes, bytes], place: PublicPlace, asked: Asked
) -> bytes | None:
    web = scheme is None or scheme.lower() in (b"http", b"https")
    if not web and not authority:
        return url
    if asked.host is not None and authority.lower() == asked.host.lower():
        path, tail = rest
        # Servers that believe X-Forwarded-Host speak of themselves by the name that the caller used.
        return path + tail if path.startswith(b"/publishers/") else _shown(path, tail, place) if web else None
    server = _server(authority)
    if server is None:
        return None
    host, port = server
    if host != place.origin.host:
        return url if _is_public(host, web) else None
    return _shown(*rest, place) if web and _is_same(scheme, port, place.origin) else None


def _is_same(scheme: bytes | None, port: int | None, origin: Origin) -> bool:
    """Return whether this is the origin's server: on its port, or on the usual ones of http and https both."""
    meant = origin.scheme if scheme is None else scheme.lower().decode("ascii")
    usual = DEFAULT_PORTS[meant]
    port = usual if port is None else port
    return port == origin.port or (port == usual and origin.port == DEFAULT_PORTS[origin.scheme])


def _server(authority: bytes) -> tuple[str, int | None] | None:
    """Return host and port, None for what is no clear host."""
    try:
        match = _AUTHORITY.fullmatch(authority.decode("utf-8"))
        if match is None or not (match[1] or match[2]):
            return None
        if match[1] is not None and ":" not in match[1]:
            return None
        host = canonical_host(match[1] or match[2].removesuffix("."))
    except (UnicodeDecodeError, EgressRefused):
        return None
    return host, int(match[3]) if match[3] else None


def _is_public(host: str, web: bool) -> bool:
    literal = numeric_host(host)
    if literal is not None:
        return refusal(literal) is None
    if not web:  # what an application of the caller's own reads is not always a host: app.example://callback
        return True
    return "." in host and not any(host.endswith(f".{name}") for name in _INNER)


def _shown(path: bytes, tail: bytes, place: PublicPlace) -> bytes | None:
    """Return the gateway's path for a path of the upstream's, None when it is not below the base."""
    if not place.whole:
        return None
    base, segments = place.base.split(b"/"), _resolved(path)
    if len(segments) < len(base):
        return None
    if any(unquote_to_bytes(ours) != unquote_to_bytes(its) for ours, its in zip(base, segments, strict=False)):
        return None
    return b"/".join([place.prefix, *segments[len(base) :]]) + tail


def _resolved(path: bytes) -> list[bytes]:
    """Return the segments of an absolute path without dot segments, as readers of URLs take them out."""
    first, *pieces = path.split(b"/")
    segments = [first]
    for piece in pieces:
        dots = len(_DOT.findall(piece)) if _DOTS.fullmatch(piece) else 0
        if dots == 2 and len(segments) > 1:
            segments.pop()
        if not dots:
            segments.append(piece)
    return [*segments, b""] if _DOTS.fullmatch(pieces[-1]) else segments


def without_parameter(tail: bytes, name: str | None) -> bytes:
    """Return query and fragment without the parameters that a server could read under this name."""
    if name is None or not tail.startswith(b"?"):
        return tail
    query, mark, fragment = tail[1:].partition(b"#")
    left = b"&".join(part for part in query.split(b"&") if not names_parameter(part, name))
    return (b"?" + left if left else b"") + mark + fragment


def names_parameter(part: bytes, name: str) -> bool:
    """Return whether some server would read a parameter of this name out of a part between ampersands."""
    pieces = (piece.partition("=")[0] for piece in part.decode("latin-1").split(";"))
    return any(unquote_plus(piece).strip().casefold() == name.casefold() for piece in pieces)


def refresh(value: bytes, place: PublicPlace, asked: Asked) -> bytes | None:
    """Return a Refresh field as the caller may see it, None when it may not."""
    match = _REFRESH.fullmatch(value)
    if match is None:
        return None
    url = (match[2] or b"").strip(b" \t")
    if url[:1] in (b'"', b"'"):
        url = url[1:].partition(url[:1])[0]
    if not url:
        return match[1]
    target = location(url, place, asked)
    return None if target is None else match[1] + b"; url=" + target


def links(value: bytes, place: PublicPlace, asked: Asked) -> bytes | None:
    """Return a Link field with the links that the caller may see, None when there is none or it cannot be read."""
    shown: list[bytes] = []
    start = 0
    while start < len(value):
        match = _LINK.match(value, start)
        if match is None:
            return None if value[start:].strip(b" \t,") else b", ".join(shown) or None
        start = match.end()
        target, parameters = location(match[1], place, asked), _parameters(match[2], place, asked)
        if target is not None and parameters is not None:
            shown.append(b"<" + target + b">" + parameters)
    return b", ".join(shown) or None


def _parameters(text: bytes, place: PublicPlace, asked: Asked) -> bytes | None:
    """Return a link's parameters, None when it is about a place that the caller may not see (`anchor`)."""
    parts: list[bytes] = []
    for match in _PARAMETER.finditer(text):
        name, value = match[1], match[2]
        if name is not None and name.lower() == b"anchor":
            anchor = location((value or b"").strip(b'"'), place, asked)
            if anchor is None:
                return None
            parts.append(b'; anchor="' + anchor + b'"')
        else:
            parts.append(match[0])
    return b"".join(parts)
