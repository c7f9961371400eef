"""From exceptions to `application/problem+json` (RFC 9457): one table for the whole admin API.

Validation errors name the field and what is wrong with it, and never repeat the value: it may be a secret. What does
not live here: the problem types themselves (gateway/errors.py), what is said of a value (wording.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from admin_api.kit.wording import wording
from gateway.audit.entries import record_refusal
from gateway.audit.origin import origin
from gateway.database.pool import LOST
from gateway.errors import InvalidRequest, MethodNotAllowed, NotFound, Problem, Unavailable, UnsupportedMediaType
from gateway.json_text import json_text
from gateway.request_body import nearest_field
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details. `type` is a path that explains the problem.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The request id."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
DESCRIPTIONS = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    410: "Gone",
    413: "Payload Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    508: "Loop Detected",
}


def problem_response(problem: Problem, instance: str) -> Response:
    """Return the answer for a problem."""
    body = json_text(problem.document(instance))
    return Response(body, problem.status, {**problem.headers, "Cache-Control": "no-store"}, MEDIA_TYPE)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an operation: its refusals by status, all with the problem schema."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)


def _identity(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_problem(request: Request, error: Exception) -> Response:
    problem = cast("Problem", error)
    if origin().refused is not None and request.method not in ("GET", "HEAD"):
        await _note_refusal(request, problem)
    return problem_response(problem, _identity(request))


async def _note_refusal(request: Request, problem: Problem) -> None:
    """Write the refusal of a member down. The answer is the same whether or not that succeeds."""
    operation = getattr(request.scope.get("route"), "operation_id", None)
    try:
        await record_refusal(request.app.state.services.database, operation or request.method, problem.detail)
    except (*LOST, Unavailable) as error:
        log.warning("a refusal is missing in the audit log: %s", type(error).__name__, extra=of(_identity(request)))


async def _on_invalid(request: Request, error: Exception) -> Response:
    found = cast("RequestValidationError", error).errors()
    # FastAPI hands on the bytes of a body that it did not take for JSON.
    unread = any(fault["loc"] == ("body",) and isinstance(fault["input"], bytes) for fault in found)
    return problem_response(not_json() if unread else invalid(found, _body_model(request)), _identity(request))


def _body_model(request: Request) -> type[BaseModel] | None:
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    model: Any = None if field is None else field.field_info.annotation
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, and problems that FastAPI wrapped while it read the body."""
    refusal = cast("HTTPException", error)
    if isinstance(refusal.__cause__, Problem):
        return problem_response(refusal.__cause__, _identity(request))
    if refusal.status_code == 405:
        allow = ", ".join(_methods(request)) or (refusal.headers or {}).get("Allow", "")
        problem: Problem = MethodNotAllowed(f"This path answers {allow} only.", headers={"Allow": allow})
    elif refusal.status_code == 404:
        problem = NotFound("No such path.")
    elif refusal.status_code < 500:
        problem = InvalidRequest("The body could not be read.")
    else:
        raise refusal
    return problem_response(problem, _identity(request))


def _methods(request: Request) -> list[str]:
    """Return every method that some route has for the path; the router names those of its first match only."""
    found: set[str] = set()
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    if "GET" in found:
        found.add("HEAD")  # the edge answers it as GET
    return sorted(found)


def not_json() -> UnsupportedMediaType:
    """Return the problem for a body that is not announced as JSON."""
    return UnsupportedMediaType(
        "The body must be JSON, sent with Content-Type: application/json.", headers={"Accept": "application/json"}
    )


def invalid(errors: Sequence[Any], body: type[BaseModel] | None = None) -> InvalidRequest:
    """Return the problem for pydantic's findings in a body of this model."""
    found: list[dict[str, str]] = []
    for error in errors[:MAX_ERRORS]:
        item = {"field": _field(error["loc"]), "message": _message(error, body)}
        if item not in found:
            found.append(item)
    first = found[0]
    detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
    if len(found) > 1:
        detail += f" ({len(found)} faults in all, see errors)"
    return InvalidRequest(detail, errors=found)


def _field(location: Sequence[Any]) -> str:
    """Return a field's name as the caller knows it: without "body" and the like, indexes as numbers."""
    parts = [str(part) for part in location]
    if parts and parts[0] in ("body", "query", "path", "header"):
        parts = parts[1:]
    return ".".join(parts)


def _message(error: Mapping[str, Any], body: type[BaseModel] | None) -> str:
    kind = error["type"]
    if kind == "missing":
        return "a JSON object is required as the body" if error["loc"] == ("body",) else "is required"
    if kind == "extra_forbidden":
        nearest = nearest_field(body, error["loc"][1:]) if body is not None else None
        return f"no such field; did you mean {nearest}?" if nearest else "no such field"
    if kind in ("model_attributes_type", "model_type", "dict_type") and error["loc"] == ("body",):
        return "the body must be a JSON object"
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return wording(error)
