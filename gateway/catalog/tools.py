"""An MCP publisher's tools by their names, and what its server was seen to have when it was last tried.

What was seen is shown and nothing else: calls ask the server itself. It is kept in the publisher's document, as text
that others wrote: bounded, and without what cannot be seen. What does not live here: the try
(proxy/mcp/connection_test.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.catalog.endpoints import Endpoint, EndpointTable
from gateway.catalog.readings import Reading
from gateway.database.statement import Command

MOST_SEEN, LONGEST = 200, 300
SEEN = "mcp_capabilities"

# Not `updated_at`: its owner has changed nothing. A server that it has left meanwhile is not shown.
KEEP_SEEN = Command(
    """
    UPDATE catalog.publisher SET document = jsonb_set(document, '{mcp_capabilities}', $3)
     WHERE id = $1 AND document->>'mcp_endpoint' = $2 AND document->>'integration_type' = 'mcp' AND deleted_at IS NULL
    """
)


def tool_reading(tool: str) -> Reading:
    """Return how a tool's name may be read.

    A server may take capitals, wide letters and spaces around a name for what they look like.
    """
    parts = (part.strip() for part in re.split(r"[/\\]", unicodedata.normalize("NFKC", tool).casefold()))
    return Reading((tuple(tool.split("/")),), (tuple(part for part in parts if part),))


def seen(
    version: str,
    tools: Sequence[Mapping[str, Any]],
    resources: Sequence[Mapping[str, Any]] | None,
    prompts: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Return what is kept of a server's lists; None: it did not say."""
    return {
        "version": version,
        "tools": _kept(tools, "name"),
        "resources": None if resources is None else _kept(resources, "uri"),
        "prompts": None if prompts is None else _kept(prompts, "name"),
        "seen_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _kept(items: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    named = [one for one in items if isinstance(one.get(key), str)]
    fields = dict.fromkeys((key, "name", "description"))
    return [{name: _text(one.get(name)) for name in fields} for one in named[:MOST_SEEN]]


def _text(value: object) -> str | None:
    """Return a text in one line, without control characters, marks of direction and half characters."""
    if not isinstance(value, str):
        return None
    words = "".join(char if char.isprintable() else " " for char in value[: 4 * LONGEST]).split()
    text = " ".join(words)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def for_buyers(document: Mapping[str, Any], *, sells_unpriced: bool) -> dict[str, Any] | None:
    """Return what was seen less the tools that nobody may buy: protected, not documented under default_deny, or without
    a price where `sells_unpriced` says that there is none for all tools.
    """
    found: dict[str, Any] | None = document.get(SEEN)
    if found is None:
        return None
    table, deny = _table(document), document.get("undocumented_endpoint_policy") == "default_deny"
    sold: list[Any] = []
    for tool in found["tools"]:
        known = table.match("POST", tool_reading(tool["name"]))
        protected = any(one is not None and one.is_protected for one in known)
        priced = sells_unpriced or all(one is not None and one.price is not None for one in known)
        if priced and not protected and not (deny and None in known):
            sold.append(tool)
    return {**found, "tools": sold}


def undocumented(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tools that were seen, can be bought, and are not documented."""
    table = _table(document)
    tools: list[dict[str, Any]] = (for_buyers(document, sells_unpriced=True) or {"tools": []})["tools"]
    return [tool for tool in tools if table.match("POST", tool_reading(tool["name"])) == (None,)]


def _table(document: Mapping[str, Any]) -> EndpointTable:
    definitions: Sequence[Mapping[str, Any]] = document.get("endpoints") or []
    return EndpointTable(
        Endpoint(
            one["method"],
            one["path"],
            None if one.get("price") in (None, "") else 0,  # whether there is one is all that is asked here
            is_protected=bool(one.get("is_protected")),
        )
        for one in definitions
    )
