"""Pages of a visit to an OAuth provider, for people: the question to a browser that did not begin it, and its end.

The question is what keeps whoever began from having somebody else's account connected to theirs by a link. So it says
which account is about to get what, cannot be framed, and is answered by a button and the ticket on this page alone.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import Response

from admin_api.kit.access import Public, ServicesDep
from admin_api.resources.oauth import WORD, ended
from admin_api.store.pages import HEADERS, POLICY, STYLE, templates
from gateway.identity.connections import LOOK_AT_RETURNED, digest
from gateway.services import Services

router = APIRouter(include_in_schema=False, prefix="/oauth")

LONGEST = 200
OVER = "This question has been answered, or is over. Begin again."


@router.get("/confirm")
async def confirm(_address: Public, services: ServicesDep, ticket: str = "") -> Response:
    """Ask whether the account that began is the one that the person means."""
    async with services.database.acquire() as connection:
        asked = await LOOK_AT_RETURNED.first(connection, digest(ticket[:LONGEST]))
    if asked is None:
        return _page(services, "Nothing to confirm", OVER, status=404)
    words = (
        f"Whoever has the API keys of the account {asked.account_name} will be able to act in your name at"
        f" {asked.provider_name}. Connect only if this account is yours, or somebody's whom you trust with that."
    )
    return _page(services, f"Connect {asked.provider_name} to {asked.account_name}?", words, ticket=ticket)


@router.post("/confirm")
async def confirmed(request: Request, _address: Public, services: ServicesDep) -> Response:
    """Connect, or do not, and redirect to where the browser is to go."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    taken = await services.consents.confirmed(form.get("ticket", [""])[0][:LONGEST])
    if taken is None:
        return _page(services, "Nothing to confirm", OVER, status=404)
    flow, provider, code = taken
    agreed = form.get("answer") == ["connect"]
    answer = ended(provider, flow, await services.consents.finish(provider, flow, code) if agreed else "access_denied")
    answer.status_code = 303
    return answer


@router.get("/done")
async def done(_address: Public, services: ServicesDep, status: str = "", error: str = "") -> Response:
    """Say how it ended."""
    if status == "connected":
        return _page(services, "Connected", "The account is connected. You can close this page.")
    why = f" ({error})" if WORD.fullmatch(error) else ""
    return _page(services, "Not connected", f"The account was not connected{why}. You can close this page.")


def _page(services: Services, heading: str, words: str, *, status: int = 200, ticket: str = "") -> Response:
    text = templates.get_template("connect.html").render(
        style=STYLE, here="", heading=heading, words=words, ticket=ticket
    )  # fmt: skip
    # Browsers hold the redirect that answers a form against form-action as well.
    origins = " ".join(services.settings.server.return_origins)
    policy = POLICY.replace("form-action 'self'", f"form-action 'self' {origins}".rstrip())
    headers = {**HEADERS, "Cache-Control": "no-store", "Content-Security-Policy": policy}
    return Response(text, status, headers, "text/html; charset=utf-8")
