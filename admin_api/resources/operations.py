"""What is not in the contract and operators or newcomers need: health, metrics, problem pages, the front page.

All of it is marked `x-extension` in the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse

from admin_api.kit.access import ServicesDep
from admin_api.kit.needs import OPEN
from admin_api.kit.problems import refusals
from gateway.database.migrate import missing as missing_migrations
from gateway.database.statement import Statement
from gateway.errors import NotFound, Problem, every_problem
from gateway.pulse import standing_still
from gateway.services import Services
from gateway.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["extensions"], dependencies=[OPEN])
health = APIRouter(tags=["extensions"], dependencies=[OPEN])
measurements = APIRouter(tags=["extensions"], dependencies=[OPEN])


class Liveness(BaseModel):
    """Whether all workers of this instance run: "live", or "hanging"."""

    status: str


class Readiness(BaseModel):
    """Whether calls can be served: each dependency with "ok" or what is wrong with it."""

    status: str
    missing: list[str]
    checks: dict[str, str]


class Markdown(PlainTextResponse):
    """A page for people and agents."""

    media_type = "text/markdown"


EXTENSION: dict[str, Any] = {"x-extension": True}
READY_SECONDS = 2.0
READ_ONLY = Statement("SELECT current_setting('transaction_read_only')::boolean", bool, scalar=True)


@router.get("/", operation_id="front_page", openapi_extra=EXTENSION)
async def front_page(services: ServicesDep) -> dict[str, Any]:
    """Say what this is and where to go on."""
    base = services.settings.public_url
    return {
        "name": "Tollway",
        "version": version(),
        "description": "A gateway where AI agents pay per call.",
        "links": {
            "register": f"{base}/auth/agent",
            "publishers": f"{base}/publishers",
            "store": f"{base}/store",
            "llms": f"{base}/llms.txt",
            "suggest": f"{base}/publishers/suggest?query=",
            "openapi": f"{base}/openapi.json",
            "docs": f"{base}/docs",
            "skill": f"{base}/skill.md",
            "problems": f"{base}/problems",
        },
    }


@health.get(
    "/health/live",
    operation_id="health_live",
    openapi_extra=EXTENSION,
    response_model=Liveness,
    responses={503: {"model": Liveness}},
)
async def health_live(services: ServicesDep) -> JSONResponse:
    """Say whether this process answers and no other worker hangs. A database outage must not restart workers."""
    hanging = standing_still(services.settings.server.hang)
    return JSONResponse({"status": "hanging" if hanging else "live"}, 503 if hanging else 200)


@health.get(
    "/health/ready",
    operation_id="health_ready",
    openapi_extra=EXTENSION,
    response_model=Readiness,
    responses={503: {"model": Readiness}},
)
async def health_ready(services: ServicesDep) -> JSONResponse:
    """Say whether calls can be served, and which dependency is missing if not."""
    checks = await readiness(services)
    missing = [name for name, state in checks.items() if state != "ok"]
    status = "ready" if not missing else "not ready"
    return JSONResponse({"status": status, "missing": missing, "checks": checks}, 200 if not missing else 503)


@measurements.get("/metrics", operation_id="metrics", openapi_extra=EXTENSION, response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """Return the Prometheus exposition of all workers."""
    return Response(await asyncio.to_thread(services.metrics.render), headers={"Content-Type": CONTENT_TYPE})


@router.get("/problems", operation_id="list_problems", openapi_extra=EXTENSION, response_class=Markdown)
async def list_problems() -> Response:
    """List every problem type."""
    lines = [f"- [{kind.title}](/problems/{kind.name}) ({kind.status})" for kind in every_problem()]
    return Markdown("# Problems\n\n" + "\n".join(lines) + "\n")


@router.get(
    "/problems/{name}",
    operation_id="get_problem",
    openapi_extra=EXTENSION,
    response_class=Markdown,
    responses=refusals(404),
)
async def get_problem(name: str) -> Response:
    """Explain a problem type: the page that `type` in a problem points to."""
    for kind in every_problem():
        if kind.name == name:
            return Markdown(_problem_page(kind))
    raise NotFound("There is no problem type of this name. GET /problems lists them.")


@router.get("/skill.md", operation_id="skill_file", openapi_extra=EXTENSION, response_class=Markdown)
async def skill_file(services: ServicesDep) -> Response:
    """Tell an agent how to use this gateway."""
    return Markdown(SKILL.replace("{base}", services.settings.public_url))


async def readiness(services: Services) -> dict[str, str]:
    """Return each dependency with "ok" or what is wrong with it."""
    database, schema = await _database(services)
    policy = services.settings.limits.when_unavailable
    valkey = "ok" if services.limiter.available else f"away; until it is back the policy {policy!r} holds"
    return {"database": database, "migrations": schema, "valkey": valkey}


async def _database(services: Services) -> tuple[str, str]:
    try:
        async with asyncio.timeout(READY_SECONDS), services.database.acquire() as connection:
            missing = await missing_migrations(connection)
            if await READ_ONLY.one(connection):
                return "can only be read (a standby, or default_transaction_read_only)", "ok"
    except Exception as error:  # noqa: BLE001 - whatever keeps us from asking is the answer
        return f"cannot be asked ({type(error).__name__})", "unknown"
    return "ok", "ok" if not missing else f"not applied: {', '.join(missing)}"


def _problem_page(kind: type[Problem]) -> str:
    text = inspect.cleandoc(kind.__doc__ or kind.title)
    return f"# {kind.title}\n\nStatus {kind.status}, type `/problems/{kind.name}`.\n\n{text}\n"


def version() -> str:
    """Return the installed version; a bare checkout has none."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("tollway")
    except PackageNotFoundError:
        return "checkout"


SKILL = """# Tollway: pay per call

Bodies of the gateway's own operations are JSON, sent with `Content-Type: application/json`.

1. Register: `POST {base}/auth/agent` with `{}`. Keep `data.agent.api_key`; it is shown once.
2. Send `Authorization: Bearer <api_key>` from now on. Claim credit: `POST {base}/wallet/bonus/signup`, and daily
   `POST {base}/wallet/daily/claim`. Balance: `GET {base}/wallet/balance`.
3. Make a recovery code: `POST {base}/wallet/recovery` with `{}`. It is the only way back after losing the key.
4. Find a publisher: `GET {base}/publishers/suggest?query=<task in words>`, then `GET {base}/publishers/<slug>` for its
   endpoints and prices.
5. Call it: any method on `{base}/publishers/<slug>/<path>`. The answer is the publisher's own; `X-Cost` says what it
   cost, `X-Balance` what is left. 402 means that the balance does not cover the price and says what is missing; nothing
   was charged. A call that fails at the publisher (5xx, timeout, broken off) costs nothing; some publishers promise
   more (`refund_rules`, and `seren.free_when` of their 402).
6. Send a fresh `Idempotency-Key` with each purchase. If the connection breaks, repeat the request with the same key: it
   is paid once, and a finished answer comes back for nothing (`Idempotency-Replayed: true`).
7. Over a limit: 429; wait `Retry-After` seconds. Receipt of a paid call: `GET {base}/receipts/<X-Request-Id>`.

Errors are `application/problem+json`; `type` is a page under `{base}`. The whole API: `{base}/openapi.json`.
"""
