"""Operators over HTTP: every operation under /operator needs one of their tokens. Extensions.

Guarded by the operators' tokens (settings.secrets), not by an organization's keys: an operator stands above all
tenants. Without a token configured these paths answer 501.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from admin_api.kit.access import ServicesDep, guess
from admin_api.kit.needs import declares
from gateway.audit.origin import origin
from gateway.errors import NotConfigured, Unauthenticated
from gateway.services import Services

EXTENSION: dict[str, Any] = {"x-extension": True}
_token = HTTPBearer(scheme_name="operator_token", auto_error=False)


@declares("operator")
async def operator(request: Request, services: ServicesDep, _documented: Annotated[object, Security(_token)]) -> str:
    """Return the name of the operator whose token a request brings."""
    if not services.settings.secrets.operators:
        raise NotConfigured("This gateway has no operator token; its operator sets TOLLWAY_SECRETS_OPERATOR_TOKENS.")
    name = operator_of(request, services)
    if name is None:
        await guess(request, services)
        raise Unauthenticated("This needs an operator's token.")
    who = origin()
    who.actor_type, who.credential_type = "operator", "operator_token"
    request.state.operator = name
    return name


def operator_of(request: Request, services: Services) -> str | None:
    """Return whose operator token a request brings, None for nobody's: compared with each in constant time."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found: str | None = None
    for name, token in services.settings.secrets.operators.items():
        if hmac.compare_digest(given.encode(), token.encode()) and scheme.lower() == "bearer":
            found = name
    return found


Operator = Annotated[str, Depends(operator)]
