"""From an OpenAPI 3 document to endpoint definitions as the publisher could have written them by hand.

What decides about money or reach is refused with its place: a price that cannot be read, too many endpoints. What
cannot be sold here is skipped, and told: methods without a price, paths with half a variable in a segment. Everything
else is documentation; it is cut to what fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from gateway.catalog import checks
from gateway.catalog.openapi.payment_info import FIELD, Units, read_price
from gateway.catalog.openapi.references import References
from gateway.catalog.openapi.refused import DocumentRefused, pointer
from gateway.catalog.openapi.schemas import TYPES, SchemaWriter
from gateway.catalog.vocabulary import MAX_ENDPOINTS, MAX_TEXT, HttpMethod, ParamType
from gateway.request_body import UNSTORABLE

MAX_SKIPPED = 100
MAX_WRITTEN = 16_384
"""Bytes of a schema or example as JSON; what is larger is left out: the store is no place for it."""
MAX_WRITTEN_IN_ALL = 500_000
NOT_SOLD = ("head", "options", "trace", "query")
# Of header parameters these are ignored (OpenAPI 3.1, "Parameter Object"): they are said elsewhere.
UNSAID_HEADERS = frozenset({"accept", "content-type", "authorization"})
_VERSION = re.compile(r"3\.[0-9]{1,2}\.[0-9]{1,3}(?:-.{1,40})?", re.ASCII)
_VARIABLE = re.compile(r"\{([^{}/]{1,64})\}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the document that makes no endpoint, and why."""

    place: str
    reason: str


@dataclass(slots=True)
class Imported:
    """Endpoint definitions as wire values, and what was left out; `written` is the bytes of schemas and examples."""

    endpoints: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    written: int = 0

    def skip(self, place: str, reason: str) -> None:
        """Note what was left out; a hundred notes are enough."""
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(Skipped(place, reason))


def import_document(root: dict[str, Any], base_url: str, units: Units) -> Imported:
    """Return the endpoints that a document describes below a publisher's base URL. Raises DocumentRefused.

    `units` are what the publisher's prices are in.
    """
    _check_version(root)
    references = References(root)
    paths = root.get("paths", {})
    if not isinstance(paths, dict):
        raise DocumentRefused("must be an object", "#/paths")
    below = _Below(root, base_url)
    found = Imported()
    seen: set[tuple[str, str]] = set()
    for path, raw in cast("dict[str, Any]", paths).items():
        place = pointer("paths", path)
        if path.startswith("x-"):
            continue
        item = references.object_at(raw, place)
        try:
            template = below.template(path)
            if "servers" in item:
                raise ValueError("has servers of its own")
        except ValueError as error:
            found.skip(place, str(error))
            continue
        for method, operation, where in _operations(item, references, path, found):
            shape = (method, checks.path_shape(template))
            if shape in seen:
                found.skip(where, "matches the same calls as another path of the document")
                continue
            seen.add(shape)
            if len(found.endpoints) >= MAX_ENDPOINTS:
                raise DocumentRefused(f"describes more than {MAX_ENDPOINTS} operations", "#/paths")
            reader = _Operation(references, item, operation, units, where, found)
            found.endpoints.append({"method": method, "path": template, **reader.fields()})
    return found


def _check_version(root: Mapping[str, Any]) -> None:
    version = root.get("openapi")
    if "swagger" in root:
        raise DocumentRefused("is Swagger 2.0; convert it to OpenAPI 3 first", "#/swagger")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise DocumentRefused('must be a version of OpenAPI 3, in quotes, such as "3.1.0"', "#/openapi")


class _Below:
    """Where the document's paths lie below the publisher's base URL."""

    def __init__(self, root: Mapping[str, Any], base_url: str) -> None:
        own = urlsplit(base_url)
        self._base = own.path.rstrip("/")
        self._server = self._base  # paths of a document that names no server of this host are the base URL's own
        listed = root.get("servers")
        for server in cast("list[Any]", listed) if isinstance(listed, list) else []:
            url = _server_url(server)
            parts = urlsplit(url) if url else None
            if parts is not None and parts.hostname and parts.hostname == own.hostname:
                self._server = parts.path.rstrip("/")
                return

    def template(self, path: str) -> str:
        """Return a path as a template below the base URL. Raises ValueError that says why it cannot be one."""
        whole = self._server + path
        if not whole.startswith(self._base + "/") and whole != self._base:
            raise ValueError("is outside of the publisher's api_url")
        below = _VARIABLE.sub(lambda match: "{" + _name(match[1]) + "}", whole[len(self._base) :]) or "/"
        return checks.path_template(below)


def _name(text: str) -> str:
    """Return a variable's name as templates have them: {user-id} is {user_id}."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if not name[:1].isdigit() else f"_{name}"


def _server_url(server: object) -> str | None:
    """Return a server's URL with the defaults of its variables."""
    if not isinstance(server, dict):
        return None
    found = cast("dict[str, Any]", server)
    url, variables = found.get("url"), found.get("variables")
    if not isinstance(url, str) or len(url) > 2_048:
        return None
    for name, variable in (cast("dict[str, Any]", variables) if isinstance(variables, dict) else {}).items():
        default = cast("dict[str, Any]", variable).get("default") if isinstance(variable, dict) else None
        url = url.replace("{" + name + "}", str(default))[:4_096]
    try:
        urlsplit(url).port  # noqa: B018 - raises for what is no URL
    except ValueError:
        return None
    return url


def _operations(
    item: Mapping[str, Any], references: References, path: str, found: Imported
) -> Iterator[tuple[str, dict[str, Any], str]]:
    for name in item:
        place = pointer("paths", path, name)
        if name in NOT_SOLD:
            reason = "is sold with GET" if name == "head" else "is a method that has no price"
            found.skip(place, reason)
        elif name.upper() in HttpMethod.__members__:
            operation = references.object_at(item[name], place)
            if "servers" in operation:
                found.skip(place, "has servers of its own")
            else:
                yield name.upper(), operation, place


@dataclass(frozen=True, slots=True)
class _Operation:
    """Reads one operation."""

    references: References
    item: Mapping[str, Any]
    operation: Mapping[str, Any]
    units: Units
    place: str
    found: Imported

    def fields(self) -> dict[str, Any]:
        """Return what is set of an EndpointDefinition beside method and path."""
        given: dict[str, Any] = {"description": self._description(), "price": self._price(), **self._parameters()}
        body = self.operation.get("requestBody")
        if body is not None:
            given["request_body"], given["example_request"] = self._content(body, f"{self.place}/requestBody")
        answer = self._answer()
        if answer is not None:
            given["response"], given["example_response"] = answer
        return {name: value for name, value in given.items() if value not in (None, [], {})}

    def _price(self) -> str | None:
        for holder in (self.operation, self.item):
            if FIELD in holder:
                return read_price(holder[FIELD], self.units, f"{self.place}/{FIELD}")
        return None

    def _description(self) -> str | None:
        parts = [self.operation.get(name) or self.item.get(name) for name in ("summary", "description")]
        texts = [prose(part) for part in dict.fromkeys(part for part in parts if isinstance(part, str))]
        if self.operation.get("deprecated") is True:
            texts.insert(0, "Deprecated.")
        return prose("\n\n".join(text for text in texts if text)) or None

    def _parameters(self) -> dict[str, Any]:
        query: dict[str, dict[str, Any]] = {}
        headers: list[str] = []
        for place, parameter in self._each_parameter():
            name, kind = parameter.get("name"), parameter.get("in")
            if not isinstance(name, str) or kind not in ("query", "header"):
                continue
            try:
                if kind == "query":
                    query[name] = self._query(name, parameter)
                elif parameter.get("required") is True and name.lower() not in UNSAID_HEADERS:
                    headers.append(checks.header_name(name))
            except ValueError as error:
                self.found.skip(place, str(error))
        return {"query_params": list(query.values())[:100], "required_headers": list(dict.fromkeys(headers))[:50]}

    def _each_parameter(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the path's parameters and then the operation's, which stand in for those of the same name."""
        for holder in (self.item, self.operation):
            listed = holder.get("parameters")
            for position, raw in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else []):
                place = f"{self.place}/parameters/{position}"
                yield place, self.references.object_at(raw, place)

    def _query(self, name: str, parameter: Mapping[str, Any]) -> dict[str, Any]:
        if not checks.QUERY_NAME.fullmatch(name):
            raise ValueError("has a name that no query parameter can be described by here")
        schema = self.references.resolve(parameter.get("schema"), self.place)
        given = cast("dict[str, Any]", schema) if isinstance(schema, dict) else {}
        kind = given.get("type")
        kinds = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
        known = [str(one) for one in kinds if one in TYPES and one in set(ParamType)]
        definition: dict[str, Any] = {"name": name, "param_type": known[0] if known else "string"}
        definition["required"] = parameter.get("required") is True
        description, example = parameter.get("description"), parameter.get("example", given.get("example"))
        if isinstance(description, str) and prose(description):
            definition["description"] = prose(description)
        if isinstance(example, str | int | float | bool):
            definition["example"] = prose(str(example).lower() if isinstance(example, bool) else str(example))
        return definition

    def _answer(self) -> tuple[Any, Any] | None:
        """Return schema and example of the first answer that means success."""
        answers = self.operation.get("responses")
        if not isinstance(answers, dict):
            return None
        codes = sorted(code for code in cast("dict[str, Any]", answers) if code[:1] == "2")
        if not codes:
            return None
        return self._content(cast("dict[str, Any]", answers)[codes[0]], f"{self.place}/responses/{codes[0]}")

    def _content(self, raw: object, place: str) -> tuple[Any, Any]:
        """Return schema and example of a body, in JSON if it can be had so."""
        content = self.references.object_at(raw, place).get("content")
        media = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        chosen = next((name for name in media if "json" in name), next(iter(media), None))
        if chosen is None:
            return None, None
        described = self.references.object_at(media[chosen], f"{place}/content")
        return self._fitting(SchemaWriter(self.references).plain(described.get("schema"))), self._example(described)

    def _example(self, described: Mapping[str, Any]) -> Any:
        if "example" in described:
            return self._fitting(described["example"])
        listed = described.get("examples")
        for one in cast("dict[str, Any]", listed).values() if isinstance(listed, dict) else ():
            resolved = self.references.resolve(one, self.place)
            if isinstance(resolved, dict):
                return self._fitting(cast("dict[str, Any]", resolved).get("value"))
        return None

    def _fitting(self, value: Any) -> Any:
        """Return a value that can be stored with an endpoint, or None."""
        try:
            size = len(orjson.dumps(checks.json_value(value)))
        except ValueError:
            return None
        if size > MAX_WRITTEN or self.found.written + size > MAX_WRITTEN_IN_ALL:
            return None
        self.found.written += size
        return value


def prose(text: str) -> str:
    """Return documentation as it can be stored: no control characters, cut where it is too long."""
    clean = UNSTORABLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…"
