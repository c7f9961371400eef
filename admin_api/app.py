"""The admin API as one application: resources, problems, the edge, and the OpenAPI document.

Everything that is not a publisher call comes here (gateway.app). What does not live here: the paid path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from admin_api.account import pages as account_pages
from admin_api.examples import REQUESTS
from admin_api.kit import needs, problems, reference
from admin_api.kit.access import KEY_FIELD
from admin_api.kit.edge import Edge
from admin_api.resources import (
    agent,
    agent_wallet,
    analytics,
    audit_logs,
    auth,
    billing_details,
    billing_health,
    charges,
    connection_tests,
    consumption,
    deposits,
    discovery,
    invitations,
    invoices,
    ip_allow_lists,
    key_budgets,
    logins,
    members,
    oauth,
    oauth_providers,
    openapi_import,
    operations,
    operator_approvals,
    operator_exchanges,
    operator_search,
    operator_suspensions,
    operator_wallets,
    organization_publishers,
    organizations,
    payment_methods,
    payment_status,
    payments,
    payouts,
    people,
    plans,
    projects,
    publisher_calls,
    publisher_endpoints,
    publishers,
    receipts,
    roles,
    sessions,
    statements,
    stripe_events,
    webhooks,
)
from admin_api.store import connect
from admin_api.store import pages as store
from gateway.services import Services

TITLE = "Tollway"
DESCRIPTION = """Agents pay per call, publishers are paid for what was delivered.

Send `Authorization: Bearer <api_key>`. Refusals are RFC 9457 problems (`application/problem+json`). Amounts named
`*_atomic` are integers of the asset's smallest unit; other amounts are decimal strings. Lists answer 400 for a limit or
offset out of range. Every answer has `X-Request-Id`."""

# What operators do: all of it needs an operator's token.
OPERATOR_ROUTERS = (
    operator_exchanges.router,
    operator_search.router,
    operator_suspensions.router,
    operator_wallets.router,
    operator_approvals.router,
)

# What can have a port of its own, which the public does not reach.
OPERATIONS_ROUTERS = (operations.measurements, *OPERATOR_ROUTERS)

# The order matters where paths overlap: /organizations/default/… before /organizations/{organization_id}/…, the store's
# own paths before the proxied ones.
ROUTERS = (
    operations.router,
    operations.health,
    agent.router,
    agent_wallet.router,
    deposits.router,
    key_budgets.router,
    auth.router,
    people.router,
    logins.router,
    sessions.router,
    account_pages.router,
    organizations.router,
    plans.router,
    audit_logs.router,
    members.router,
    invitations.router,
    roles.router,
    webhooks.router,
    stripe_events.router,
    projects.router,
    ip_allow_lists.router,
    connection_tests.router,
    openapi_import.router,
    publisher_endpoints.router,
    organization_publishers.router,
    analytics.router,
    billing_health.router,
    consumption.router,
    statements.router,
    publishers.router,
    discovery.router,
    publisher_calls.router,
    oauth_providers.router,
    oauth.router,
    connect.router,
    receipts.router,
    invoices.router,
    invoices.payments,
    billing_details.router,
    charges.router,
    payouts.router,
    payments.router,
    payment_methods.router,
    payment_status.router,
    *OPERATIONS_ROUTERS,
    store.router,
)


def build(services: Services) -> FastAPI:
    """Return the admin API of one worker."""
    return _application(services, ROUTERS)


def build_public(services: Services) -> FastAPI:
    """Return what is left of it on the public port where operators have their own."""
    return _application(services, [router for router in ROUTERS if router not in OPERATIONS_ROUTERS])


def build_operations(services: Services) -> FastAPI:
    """Return what is served on the operators' own port."""
    return _application(services, [operations.health, *OPERATIONS_ROUTERS])


def _application(services: Services, routers: Sequence[APIRouter]) -> FastAPI:
    app = FastAPI(
        title=TITLE,
        version=operations.version(),
        description=DESCRIPTION,
        separate_input_output_schemas=False,
        redirect_slashes=False,
        middleware=[Middleware(Edge)],
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    app.state.kept = {}
    app.state.routes = [route for router in routers for route in router.routes]
    needs.check(app.state.routes)
    problems.install(app)
    for router in routers:
        app.include_router(router)
    app.openapi = lambda: document(app)
    app.add_api_route("/docs", _reference, include_in_schema=False)
    return app


async def _reference(request: Request) -> Response:
    """Return the API reference for people."""
    headers = {"Content-Security-Policy": reference.POLICY}
    return HTMLResponse(reference.page(document(request.app)), headers=headers)


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document, made once: as FastAPI sees it, with our errors instead of its own."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=app.separate_input_output_schemas,
        )
        schemas: dict[str, Any] = made["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = problems.SCHEMA
        for route in app.state.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    made["paths"][route.path_format][method.lower()]["x-permission"] = needs.declared(route)
        for item in made["paths"].values():
            _complete(item)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(item: dict[str, Any]) -> None:
    """Declare what every operation may answer, where no credential is needed, and what a body looks like."""
    for operation in item.values():
        responses = operation["responses"]
        if responses.get("422", {}).get("description") == "Validation Error":
            del responses["422"]  # FastAPI's own; malformed input is 400 here
        for status, refusal in problems.refusals(*_common(operation)).items():
            responses.setdefault(str(status), refusal)
        operation["responses"] = dict(sorted(responses.items()))
        operation.setdefault("security", [])
        example = REQUESTS.get(operation["operationId"])
        if example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = example


def _common(operation: dict[str, Any]) -> list[int]:
    common = [500, 503] if operation.get("x-extension") else [429, 500, 503]
    if operation.get("parameters") or operation.get("security"):
        common.append(400)
    if any(parameter["name"] == KEY_FIELD for parameter in operation.get("parameters", ())):
        common += [409, 410, 422]
    if operation.get("security") and {} not in operation["security"]:
        common.append(401)
    if needs.may_forbid(operation["x-permission"]):
        common.append(403)
    body = operation.get("requestBody")
    if body is not None and "default" not in operation["responses"]:
        common += [400, 413]
        if "application/json" in body["content"]:
            common.append(415)
    return common
