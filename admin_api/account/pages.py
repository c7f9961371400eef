"""Routes of the pages that letters lead to. Opening one does nothing: mail filters open links, people press buttons.

The token is in the address's fragment, so it is in no request and no log; only a page's own style and script run, by
their hashes, and they may speak to nobody but this gateway. The login that a confirmed address brings is ended at once,
since these pages have nowhere to keep its tokens: the person logs in where they want to be. To answer an invitation a
person logs in on its page, for as long as the answer takes.
"""

from __future__ import annotations

import base64
import hashlib

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from admin_api.kit.access import Public
from gateway.identity.passwords import LONGEST, SHORTEST
from gateway.mail.letters import INVITATION_PAGE, RESET_PAGE, VERIFY_PAGE

router = APIRouter(include_in_schema=False)

_templates = Environment(
    loader=PackageLoader("admin_api.account"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
STYLE, SCRIPT, ANSWER_SCRIPT = (
    _templates.get_template(name).render() for name in ("letter.css", "letter.js", "invitation.js")
)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _headers(script: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(script)}; connect-src 'self';"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@router.get(VERIFY_PAGE)
async def verify_email_page(_address: Public) -> Response:
    """Show the button that confirms an address."""
    return _page("Confirm your e-mail address", "Confirm", "/auth/verify-email", asks_password=False)


@router.get(RESET_PAGE)
async def reset_password_page(_address: Public) -> Response:
    """Show the field for another password."""
    return _page("Choose a new password", "Set the password", "/auth/reset-password", asks_password=True)


@router.get(INVITATION_PAGE)
async def invitation_page(_address: Public) -> Response:
    """Show the login that an invitation asks for, and then its two answers."""
    text = _templates.get_template("invitation.html").render(longest=LONGEST, style=STYLE, script=ANSWER_SCRIPT)
    return HTMLResponse(text, headers=_headers(ANSWER_SCRIPT))


def _page(title: str, button: str, operation: str, *, asks_password: bool) -> Response:
    text = _templates.get_template("letter.html").render(
        title=title, button=button, operation=operation, asks_password=asks_password,
        shortest=SHORTEST, longest=LONGEST, style=STYLE, script=SCRIPT,
    )  # fmt: skip
    return HTMLResponse(text, headers=_headers(SCRIPT))
