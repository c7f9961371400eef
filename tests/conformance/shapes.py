"""What an operation takes and gives, as flat facts: place in the JSON -> type, whether always there, allowed values.

Two documents say the same thing in many ways (`$ref`, `allOf`, `nullable`, type lists); their facts can be compared.
`$` is the value itself, `$.data.name` a member, `[]` the elements of an array. A fact is a word such as `!string|null`:
`!` means always there, `any` is any JSON value, ` = a b` after it lists the allowed values. Members deeper than three
objects are left out, as the contract's own tool does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEPTH = 3
ARRAYS = 5
METHODS = ("get", "post", "put", "patch", "delete")
Facts = dict[str, str]


@dataclass
class Shape:
    """A schema without references and unions. `types` None is any JSON value."""

    types: set[str] | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    items: Any = None
    enum: list[Any] | None = None


def lookup(node: Any, document: dict[str, Any]) -> Any:
    """Follow references inside the document."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def resolve(schema: Any, document: dict[str, Any]) -> Shape:
    """Return a schema's shape."""
    if not isinstance(schema, dict):
        return Shape()
    parts = [resolve(lookup(schema, document), document)] if "$ref" in schema else []
    parts += [resolve(part, document) for part in schema.get("allOf", [])]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts.append(_either([resolve(part, document) for part in schema[word]]))
    shape = _both([_own(schema), *parts])
    if schema.get("nullable") and shape.types is not None:
        shape.types.add("null")
    return shape


def _own(schema: dict[str, Any]) -> Shape:
    kind = schema.get("type")
    enum = [schema["const"]] if "const" in schema else schema.get("enum")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string" if enum else None
    return Shape(
        None if kind is None else {kind} if isinstance(kind, str) else set(kind),
        dict(schema.get("properties", {})),
        set(schema.get("required", [])),
        schema.get("items"),
        enum and [value for value in enum if value is not None],
    )


def _both(parts: list[Shape]) -> Shape:
    """Return what holds when every part holds."""
    whole = Shape()
    for part in parts:
        if part.types is not None:
            whole.types = part.types if whole.types is None else whole.types & part.types
        for name, schema in part.properties.items():
            known = whole.properties.get(name, schema)
            whole.properties[name] = schema if known == schema else {"allOf": [known, schema]}
        whole.required |= part.required
        whole.items = part.items if whole.items is None else whole.items
        whole.enum = part.enum if whole.enum is None else whole.enum
    return whole


def _either(parts: list[Shape]) -> Shape:
    """Return what may hold when one of the parts holds."""
    if any(part.types is None for part in parts):
        return Shape()
    whole = Shape(set[str]().union(*(part.types or set() for part in parts)))
    values = [part for part in parts if part.types != {"null"}]
    for part in values:
        for name, schema in part.properties.items():
            known = whole.properties.get(name, schema)
            whole.properties[name] = schema if known == schema else {"anyOf": [known, schema]}
        whole.items = part.items if whole.items is None else whole.items
    objects = [part.required for part in values if "object" in (part.types or ())]
    whole.required = set.intersection(*objects) if objects else set()
    if values and all(part.enum is not None for part in values):
        whole.enum = [value for part in values for value in part.enum or []]
    return whole


def facts(schema: Any, document: dict[str, Any]) -> Facts:
    """Return the facts of a schema."""
    found: Facts = {}
    _collect(schema, document, "$", True, 0, found)
    return found


def _collect(schema: Any, document: dict[str, Any], place: str, always: bool, depth: int, found: Facts) -> None:
    shape = resolve(schema, document)
    text = "any" if shape.types is None else "|".join(sorted(shape.types))
    if shape.enum is not None:
        text += " = " + " ".join(map(str, shape.enum))
    found[place] = ("!" if always else "") + text
    if shape.types is None:
        return
    if "array" in shape.types and shape.items is not None and place.count("[]") < ARRAYS:
        _collect(shape.items, document, place + "[]", True, depth, found)
    if "object" in shape.types and depth < DEPTH:
        for name, member in sorted(shape.properties.items()):
            _collect(member, document, f"{place}.{name}", name in shape.required, depth + 1, found)


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations of a document by "METHOD /path", in comparable form."""
    found: dict[str, dict[str, Any]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                found[f"{method.upper()} {path}"] = _operation(item, item[method], document)
    return found


def _operation(item: dict[str, Any], operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    parameters: Facts = {}
    for raw in [*item.get("parameters", []), *operation.get("parameters", [])]:
        one = lookup(raw, document)
        word = facts(one.get("schema", {}), document)["$"].removeprefix("!")
        parameters[f"{one['in']} {one['name']}"] = ("!" if one.get("required") else "") + word
    body = lookup(operation.get("requestBody", {}), document)
    return {
        "id": operation.get("operationId"),
        "tag": operation.get("tags", ["-"])[0],
        "parameters": parameters,
        "body_required": bool(body.get("required")),
        "request": _bodies(body, document),
        "responses": {
            str(status): _bodies(lookup(answer, document), document)
            for status, answer in operation["responses"].items()
        },
    }


def _bodies(holder: dict[str, Any], document: dict[str, Any]) -> dict[str, Facts]:
    """Return the facts of each JSON body; of other media types only that there is one."""
    return {
        media: facts(content.get("schema", {}), document) if media == "application/json" else {}
        for media, content in holder.get("content", {}).items()
    }
