"""Routes of the store for people: `/store` and `/store/{slug}`. The API's JSON stays where it is, at `/publishers`.

Nothing is loaded from another host, and nothing runs: the policy allows this page's own style, by its hash, and logos
that are stored here. Answers carry an ETag, so that a page that did not change is not sent again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from admin_api.kit.access import Public, ServicesDep
from admin_api.resources.publisher_models import payable
from admin_api.store import facts
from admin_api.store.clean import clean, line
from admin_api.store.readiness import not_ready
from gateway.catalog.records import COUNT_STORE, FIND_IN_STORE, LIST_STORE, Publisher, assemble
from gateway.catalog.refund_rules import free_when
from gateway.catalog.sales import FIND_SALE, schema_view
from gateway.catalog.tools import SEEN, undocumented
from gateway.services import Services

router = APIRouter(include_in_schema=False)

PAGE = 24
MAX_OFFSET = 100_000
MAX_ENDPOINTS_SHOWN = 100
MAX_TABLES_SHOWN = 50
MAX_COLUMNS_SHOWN = 200
SECONDS = 30
CATEGORIES = {"integration": "APIs", "database": "Databases", "compute": "Compute"}
SELLERS = {"individual": "an individual", "organization": "an organization"}
KINDS = {"integration": "API", "database": "Database, sold by SQL queries", "compute": "Compute"}
MCP = "MCP server, sold tool by tool"

templates = Environment(
    loader=PackageLoader("admin_api.store"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
templates.filters.update(clean=clean, line=line)
STYLE = templates.get_template("style.css").render()
_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_hash}'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": f"public, max-age={SECONDS}",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/store")
async def store(
    request: Request,
    _address: Public,
    services: ServicesDep,
    search: str = "",
    category: str = "",
    offset: str = "",
) -> Response:
    """Show the store, or what is found in it. People mistype addresses: what cannot be meant is passed over."""
    term, start = line(search), _place(offset)
    chosen = category if category in CATEGORIES else ""
    filters = (None, chosen or None, term or None)
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        found = await assemble(connection, await LIST_STORE.all(connection, *filters, PAGE, start))
        total = await COUNT_STORE.one(connection, *filters)
    shown = [
        {
            "slug": one.record.slug,
            "name": one.record.name,
            "description": one.record.description,
            "price": facts.summary(one),
            "kind": _kind(one),
            "verified": one.record.is_verified,
        }
        for one in found
    ]

    def at(place: int) -> str:
        given = {"search": term, "category": chosen, "offset": str(place) if place else ""}
        return "/store?" + urlencode({name: value for name, value in given.items() if value})

    return _page(
        request, "list.html", here="store", term=term, category=chosen, categories=CATEGORIES, shown=shown, total=total,
        offset=start, before=at(max(0, start - PAGE)) if start else "",
        after=at(start + PAGE) if start + PAGE < total else "",
    )  # fmt: skip


def _place(text: str) -> int:
    """Return where a page of the list begins."""
    return min(int(text), MAX_OFFSET) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


@router.get("/store/{slug}")
async def store_publisher(slug: str, request: Request, _address: Public, services: ServicesDep) -> Response:
    """Show one publisher: prices, endpoints or tables, and how to call it."""
    async with services.database.acquire() as connection:
        record = await FIND_IN_STORE.first(connection, slug) if _may_be_slug(slug) else None
        if record is None:
            return _page(request, "missing.html", status=404, here="")
        publisher = (await assemble(connection, [record]))[0]
        sale = await FIND_SALE.first(connection, record.id)
    tables: list[dict[str, Any]] = schema_view(sale, owner=False)["tables"] if sale is not None else []
    return _page(request, "publisher.html", here="", **_shown(publisher, services, tables))


def _kind(publisher: Publisher) -> str:
    return MCP if facts.is_mcp(publisher) else KINDS[publisher.record.category]


def _may_be_slug(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text) <= 64


def _shown(publisher: Publisher, services: Services, tables: list[dict[str, Any]]) -> dict[str, Any]:
    record, document, public_url = publisher.record, publisher.record.document, services.settings.public_url
    on_sale = facts.sold(publisher)
    examples: list[dict[str, Any]] = document.get("usage_examples") or []
    return {
        "slug": record.slug,
        "name": record.name,
        "description": record.description,
        "has_logo": record.has_logo,
        "kind": _kind(publisher),
        "verified": record.is_verified,
        "calls": publisher.usage.calls,
        "free_when": free_when(publisher.record.document),
        "assets": [f"{asset.symbol} on {asset.network_name}" for asset in publisher.assets],
        "capabilities": (document.get("capabilities") or [])[:20],
        "price": facts.summary(publisher),
        "price_words": publisher.pricing[0].pricing_display_text if publisher.pricing else None,
        "seller": SELLERS.get(document.get("publisher_type") or "", SELLERS["individual"]),
        "not_ready": not_ready(publisher, services),
        "connect": _connect(document, public_url),
        "register": f"{public_url}/auth/agent",
        "curl": facts.call(publisher, public_url, on_sale[0] if on_sale else None),
        "onchain": bool(payable(publisher, services.kinds)),
        "endpoints": [_endpoint(publisher, one) for one in on_sale[:MAX_ENDPOINTS_SHOWN]],
        "more": max(0, len(on_sale) - MAX_ENDPOINTS_SHOWN),
        "seen": _seen(publisher) if facts.is_mcp(publisher) else None,
        "deny": document.get("undocumented_endpoint_policy") == "default_deny",
        "other": ", ".join(
            f"{method} {facts.tag(publisher, method).words}"
            for method in ("GET", "POST")
            if method in facts.methods(publisher)
        ),
        "mcp": f"{public_url}/publishers/{record.slug}/mcp" if facts.is_mcp(publisher) else None,
        "tables": [{**one, "columns": one["columns"][:MAX_COLUMNS_SHOWN]} for one in tables[:MAX_TABLES_SHOWN]],
        "examples": [_example(one) for one in examples[:5]],
    }


def _connect(document: dict[str, Any], public_url: str) -> str | None:
    """Return where callers connect their user's account, if calls are made in a user's name."""
    provider = document.get("oauth_provider_id") if document.get("requires_user_oauth") else None
    return None if provider is None else f"{public_url}/oauth/providers/{provider}/authorize"


def _endpoint(publisher: Publisher, endpoint: dict[str, Any]) -> dict[str, Any]:
    params: list[dict[str, Any]] = endpoint.get("query_params") or []
    return {
        "method": endpoint["method"],
        "path": endpoint["path"],
        "price": facts.tag(publisher, endpoint["method"], endpoint).words,
        "description": endpoint.get("description"),
        "params": [{"param_type": "string", "required": False, "description": None, **one} for one in params[:10]],
    }


def _seen(publisher: Publisher) -> dict[str, Any] | None:
    """Return what the publisher's MCP server was seen to have beside what the publisher documents."""
    document = publisher.record.document
    found = document.get(SEEN)
    if found is None:
        return None
    others = undocumented(document)[:MAX_ENDPOINTS_SHOWN] if facts.tag(publisher, "POST").kind != "unsold" else []
    numbers = [f"{len(found[kind + 's'] or ())} {kind}" for kind in ("resource", "prompt")]
    words = " and ".join(text if text.startswith("1 ") else f"{text}s" for text in numbers)
    return {"at": found["seen_at"][:10], "tools": others, "others": words}


def _example(example: dict[str, Any]) -> dict[str, Any]:
    return {name: example.get(name) for name in ("title", "description", "curl")}


def _page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page, or say that the caller has it already."""
    text = templates.get_template(template).render(style=STYLE, **values)
    body = text.encode("utf-8")
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if status == 200 and etag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, "text/html; charset=utf-8")
