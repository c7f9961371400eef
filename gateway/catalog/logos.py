"""Publishers' logos: what is accepted, stored and served.

A logo is shown by browsers on our origin, so its bytes must be what its type says, and an SVG must be a picture only:
no script, no foreign content, nothing fetched from elsewhere. It is served in a sandbox besides.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from uuid import UUID
from xml.parsers import expat

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement

MAX_LOGO = 1_048_576
MAX_ENCODED = -(-MAX_LOGO // 3) * 4
TYPES = ("image/png", "image/jpeg", "image/webp", "image/svg+xml")
SVG_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

# Everything that a picture is made of; whatever is not here is refused, scripts and foreign content among it.
_SVG_WORDS = """
    svg g defs symbol use title desc metadata path rect circle ellipse line polyline polygon text tspan textpath image
    lineargradient radialgradient stop pattern clippath mask marker filter switch style
    feblend fecolormatrix fecomponenttransfer fecomposite feconvolvematrix fediffuselighting fedisplacementmap
    fedistantlight fedropshadow feflood fefunca fefuncb fefuncg fefuncr fegaussianblur femerge femergenode femorphology
    feoffset fepointlight fespecularlighting fespotlight fetile feturbulence
"""
_SVG_ELEMENTS = frozenset(_SVG_WORDS.split())
_STYLE_DANGER = re.compile(r"url\s*\(\s*['\"]?\s*(?!['\"]?\s*#)|@import|expression\s*\(|javascript:|\\", re.I)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/=\s]+")


class LogoRefused(ValueError):
    """The upload is not a usable logo. `field` is the request's field to blame."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Logo:
    """A stored logo."""

    content_type: str
    body: bytes
    digest: bytes

    @property
    def etag(self) -> str:
        """Return the strong validator."""
        return f'"{self.digest.hex()[:32]}"'


@dataclass(frozen=True, slots=True)
class LogoPlace:
    """Where a store publisher's logo is: stored here, elsewhere, or nowhere."""

    content_type: str | None
    body: bytes | None
    digest: bytes | None
    logo_url: str | None

    def stored(self) -> Logo | None:
        """Return the logo kept here, if there is one."""
        if self.content_type is None or self.body is None or self.digest is None:
            return None
        return Logo(self.content_type, self.body, self.digest)


PUT_LOGO = Command(
    """
    INSERT INTO catalog.logo (publisher_id, content_type, body, digest) VALUES ($1, $2, $3, $4)
    ON CONFLICT (publisher_id) DO UPDATE SET content_type = $2, body = $3, digest = $4, updated_at = now()
    """
)
FIND_LOGO = Statement(
    """
    SELECT l.content_type, l.body, l.digest, p.document->>'logo_url' AS logo_url
      FROM catalog.publisher p LEFT JOIN catalog.logo l ON l.publisher_id = p.id
     WHERE p.slug = $1 AND p.is_active AND NOT p.suspended AND p.deleted_at IS NULL
    """,
    LogoPlace,
)


def read_logo(encoded: str, content_type: str) -> Logo:
    """Return the logo of an upload. Raises LogoRefused."""
    if content_type not in TYPES:
        raise LogoRefused("content_type", f"must be one of {', '.join(TYPES)}")
    if encoded.startswith("data:"):
        raise LogoRefused("logo", "must be plain base64, without a data: prefix")
    if len(encoded) > MAX_ENCODED:
        raise LogoRefused("logo", f"must be at most {MAX_LOGO} bytes after decoding")
    try:
        body = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise LogoRefused("logo", "is not valid base64") from None
    if len(body) > MAX_LOGO:
        raise LogoRefused("logo", f"must be at most {MAX_LOGO} bytes after decoding")
    if not _is(body, content_type):
        raise LogoRefused("logo", f"is not {content_type}")
    if content_type == "image/svg+xml":
        check_svg(body)
    return Logo(content_type, body, hashlib.sha256(body).digest())


async def put_logo(connection: Connection, publisher_id: UUID, logo: Logo) -> None:
    """Store a logo in place of an earlier one."""
    await PUT_LOGO.run(connection, publisher_id, logo.content_type, logo.body, logo.digest)


def _is(body: bytes, content_type: str) -> bool:
    match content_type:
        case "image/png":
            return body.startswith(b"\x89PNG\r\n\x1a\n") and body[12:16] == b"IHDR"
        case "image/jpeg":
            return body.startswith(b"\xff\xd8\xff")
        case "image/webp":
            return body[:4] == b"RIFF" and body[8:12] == b"WEBP"
        case _:
            return b"<svg" in body


def check_svg(body: bytes) -> None:
    """Raise LogoRefused unless an SVG is a picture and nothing else."""
    parser = expat.ParserCreate()
    styles: list[str] = []
    inside: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        element = name.rpartition(":")[2].lower()
        if element not in _SVG_ELEMENTS or (not inside and element != "svg"):
            raise LogoRefused("logo", f"contains the SVG element {element[:40]!r}, which logos must not have")
        inside.append(element)
        for attribute, value in attributes.items():
            _check_attribute(attribute.rpartition(":")[2].lower(), value)

    def end(_name: str) -> None:
        inside.pop()

    def characters(text: str) -> None:
        if inside and inside[-1] == "style":
            styles.append(text)

    def refuse(*_ignored: object) -> None:
        raise LogoRefused("logo", "must not have a document type, entities or processing instructions")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ProcessingInstructionHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        raise LogoRefused("logo", "is not well-formed XML") from None
    if _STYLE_DANGER.search("".join(styles)):
        raise LogoRefused("logo", "has a style that refers to something outside the picture")


def _check_attribute(name: str, value: str) -> None:
    if name.startswith("on"):
        raise LogoRefused("logo", "has an event handler")
    if name in ("href", "src") and not value.startswith("#") and not _INLINE_IMAGE.fullmatch(value):
        raise LogoRefused("logo", "refers to something outside the picture")
    if _STYLE_DANGER.search(value) and not _INLINE_IMAGE.fullmatch(value):
        raise LogoRefused("logo", "refers to something outside the picture")
