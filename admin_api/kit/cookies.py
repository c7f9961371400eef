"""Login cookies for browsers, and what keeps another site from using them.

Cookies are HttpOnly: no script reads a token. Behind https they are Secure and have names that a browser takes from
this host only. A request that changes something is heard by cookie only if the browser says that it comes from this
very origin (Sec-Fetch-Site, or Origin where that is missing); SameSite is the second fence. A request with an
Authorization field needs none of this, since no browser adds that by itself, and its cookies are not looked at.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request, Response

from gateway.errors import Forbidden
from gateway.identity.sessions import Opened
from gateway.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
REFRESH_PATH = "/auth"


def access_token(request: Request, settings: Settings) -> str | None:
    """Return the access token of the login cookie, where the request may use it. Raises Forbidden."""
    found = request.cookies.get(_name("__Host-", "access", settings))
    if found and request.method not in SAFE:
        demand_same_origin(request, settings)
    return found or None


def refresh_token(request: Request, settings: Settings) -> str | None:
    """Return the refresh token of its cookie. Raises Forbidden for a request of another origin."""
    found = request.cookies.get(_name("__Secure-", "refresh", settings))
    if found:
        demand_same_origin(request, settings)
    return found or None


def demand_same_origin(request: Request, settings: Settings) -> None:
    """Raise Forbidden unless the browser says that a page of ours sends this."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = site == "same-origin" if site is not None else origin is not None and origin == _origin(settings)
    if not ours:
        raise Forbidden(
            "Requests with login cookies must come from a page of this gateway. Send the access token as"
            " `Authorization: Bearer …` instead."
        )


def put(response: Response, opened: Opened, settings: Settings) -> None:
    """Hand over a pair of tokens as cookies."""
    secure = _is_https(settings)
    response.set_cookie(
        _name("__Host-", "access", settings), opened.access_token,
        max_age=opened.expires_in, path="/", secure=secure, httponly=True, samesite="lax",
    )  # fmt: skip
    response.set_cookie(
        _name("__Secure-", "refresh", settings), opened.refresh_token,
        max_age=opened.lasts, path=REFRESH_PATH, secure=secure, httponly=True, samesite="strict",
    )  # fmt: skip


def take_away(response: Response, settings: Settings) -> None:
    """Remove the login cookies."""
    secure = _is_https(settings)
    response.delete_cookie(
        _name("__Host-", "access", settings), path="/", secure=secure, httponly=True, samesite="lax"
    )  # fmt: skip
    response.delete_cookie(
        _name("__Secure-", "refresh", settings), path=REFRESH_PATH, secure=secure, httponly=True, samesite="strict"
    )  # fmt: skip


def _name(prefix: str, which: str, settings: Settings) -> str:
    return f"{prefix if _is_https(settings) else ''}tollway_{which}"


def _is_https(settings: Settings) -> bool:
    return settings.public_url.startswith("https://")


def _origin(settings: Settings) -> str:
    parts = urlsplit(settings.public_url)
    return f"{parts.scheme}://{parts.netloc}"
