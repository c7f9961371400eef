"""The paid operations of category `publishers`, for the OpenAPI document.

gateway.app sends publisher calls down the pipeline before this application sees them. What still arrives here spells
the path in another way (`/publishers%2Fshop/x`), which two readers could understand differently: it is refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.convertors import Convertor, register_url_convertor

from admin_api.kit.access import KeyField
from admin_api.kit.body import StrictRoute
from admin_api.kit.needs import declares
from admin_api.kit.problems import refusals
from admin_api.resources.publisher_models import DatabaseQueryRequest
from admin_api.resources.wallet_models import PaymentRequiredResponseWithInfo
from gateway.errors import InvalidTarget


@declares("payment")
async def paid(_key: KeyField = None) -> None:
    """Stand for the pipeline (gateway/proxy), which asks who pays: a key that may buy, or a wallet."""


router = APIRouter(prefix="/publishers", tags=["publishers"], route_class=StrictRoute, dependencies=[Depends(paid)])


class SlugConvertor(Convertor[str]):
    """One path segment that can be a slug. `suggest` cannot: it is an operation of the store."""

    regex = "(?!suggest(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        """Return the segment as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return the segment as it is."""
        return value


register_url_convertor("slug", SlugConvertor())
SLUG = "/{slug:slug}"

# The upstream's own answer has any status and any type.
RESPONSES: dict[int | str, dict[str, Any]] = {
    **refusals(400, 401, 403, 404, 409, 410, 414, 422, 431, 501, 502, 504, 508),
    200: {"description": "The publisher's answer", "content": {"*/*": {}}},
    402: {"model": PaymentRequiredResponseWithInfo, "description": "Payment Required"},
    "default": {"description": "The publisher's answer", "content": {"*/*": {}}},
}
# A key pays. Free endpoints need none.
PAID: dict[str, Any] = {"security": [{"bearer_auth": []}, {}]}
ANY_BODY = {
    "required": False,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(SLUG, operation_id="publisher_root_handler", responses=RESPONSES, openapi_extra=PAID)
async def publisher_root_handler(slug: str, body: DatabaseQueryRequest | Any) -> Any:
    """Run a query at a database publisher, or call the root of an API publisher. Paid."""
    raise _misspelt(slug, body)


@router.get(f"{SLUG}/{{path:path}}", operation_id="proxy_to_publisher_get", responses=RESPONSES, openapi_extra=PAID)
async def proxy_to_publisher_get(slug: str, path: Annotated[str, Path()]) -> Any:
    """Call the publisher. Paid; every method is served, the answer is the upstream's own."""
    raise _misspelt(slug, path)


@router.post(
    f"{SLUG}/{{path:path}}",
    operation_id="proxy_to_publisher_post",
    responses=RESPONSES,
    openapi_extra={**PAID, "requestBody": ANY_BODY},
)
async def proxy_to_publisher_post(slug: str, path: Annotated[str, Path()]) -> Any:
    """Call the publisher with a body, which is streamed through. Paid."""
    raise _misspelt(slug, path)


def _misspelt(*_parameters: object) -> InvalidTarget:
    return InvalidTarget("A publisher call begins with /publishers/<slug>/ as it stands here, not percent-encoded.")
