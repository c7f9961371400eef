"""The API reference as one plain HTML page, made from the OpenAPI document: no script, nothing from another host.

What does not live here: the document itself (admin_api/app.py), and prose (docs/).
"""

from __future__ import annotations

from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any

# Nothing may run or load, so that a description with markup in it stays text even if escaping were forgotten.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
METHODS = ("get", "post", "put", "patch", "delete")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
:root {{ color-scheme: light dark; }}
summary {{ cursor: pointer; padding: .3rem 0; }}
code {{ font-size: .95em; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }}
details {{ border-bottom: 1px solid #8884; }}
.more {{ margin: 0 0 1rem 1.2rem; }}
</style>
</head>
<body>
<main>
<h1>{title} API</h1>
<p>{description}</p>
<p>Machine-readable: <a href="openapi.json">openapi.json</a>. Refusals: <a href="problems">problems</a>.</p>
<nav aria-label="Categories"><p>{contents}</p></nav>
{sections}
</main>
</body>
</html>
"""

Schema = dict[str, Any]


def page(document: Schema) -> str:
    """Return the reference of an OpenAPI 3.1 document as HTML."""
    operations = sorted(
        (
            (operation.get("tags", ["other"])[0], path, METHODS.index(method), method, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        ),
        key=itemgetter(0, 1, 2),
    )
    groups = [(tag, list(members)) for tag, members in groupby(operations, key=itemgetter(0))]
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        description=escape(info.get("description", "")),
        contents=" · ".join(f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag, _ in groups),
        sections="\n".join(
            f'<section id="{_anchor(tag)}">\n<h2>{escape(tag)}</h2>\n'
            + "\n".join(_operation(document, method, path, operation) for _, path, _, method, operation in members)
            + "\n</section>"
            for tag, members in groups
        ),
    )


def _operation(document: Schema, method: str, path: str, operation: Schema) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    if not operation.get("security"):
        parts.append("<p>No key needed.</p>")
    rows = [
        (parameter["name"], f"{parameter['in']}, {_kind(parameter.get('schema', {}))}", parameter)
        for parameter in operation.get("parameters", [])
    ]
    parts.append(_table("Parameters", [(name, kind, bool(one.get("required")), one) for name, kind, one in rows]))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(document, content.get("schema", {}))
        required = schema.get("required", [])
        fields = [(name, _kind(one), name in required, one) for name, one in schema.get("properties", {}).items()]
        parts.append(_table(f"Body ({media})", fields))
    answers = ", ".join(
        f"<strong>{escape(code)}</strong> {escape(answer.get('description', ''))}"
        for code, answer in operation.get("responses", {}).items()
    )
    return (
        f'<details id="{escape(operation.get("operationId", path))}">\n'
        f"<summary><code>{method.upper()} {escape(path)}</code> {escape(operation.get('summary', ''))}</summary>\n"
        f'<div class="more">{"".join(parts)}<p>Answers: {answers}</p></div>\n</details>'
    )


def _table(caption: str, rows: list[tuple[str, str, bool, Schema]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(kind)}{"" if needed else ", optional"}</td>'
        f"<td>{escape(str(one.get('description', '')))}</td></tr>"
        for name, kind, needed, one in rows
    )
    return f"<table><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def _resolved(document: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    return document["components"]["schemas"][reference.rsplit("/", 1)[-1]] if reference else schema


def _kind(schema: Schema) -> str:
    """Return a schema in one word or a few: its type, its name, or its choices."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[-1]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(kind for kind in map(_kind, schema["anyOf"]) if kind != "null")
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _anchor(tag: str) -> str:
    # As it is written: `Webhooks` go out and `webhooks` come in.
    return "".join(letter if letter.isalnum() else "-" for letter in tag)
