"""The session ids that MCP clients get: the publisher's own, sealed for one caller at one publisher.

So no worker has to remember anything, and an id is worth nothing to anybody else: it does not open for another
account, for a caller without a key, or at another publisher. Callers without an account share a name, `nobody`: among
them an id is as secret as its holder keeps it, as MCP has it.
"""

from __future__ import annotations

import base64
import binascii

from gateway.errors import NotConfigured, SessionLost
from gateway.proxy.exchange import Exchange
from gateway.upstreams.credentials import CredentialBox, CredentialError, NoKeys


def sealed(box: CredentialBox, exchange: Exchange, session: bytes) -> bytes:
    """Return a publisher's session id as its caller gets it. Raises NotConfigured."""
    try:
        return base64.urlsafe_b64encode(box.seal(session, _context(exchange))).rstrip(b"=")
    except NoKeys:
        raise NotConfigured("MCP sessions need TOLLWAY_SECRET_KEYS; tell the operator.") from None


def opened(box: CredentialBox, exchange: Exchange, given: bytes) -> bytes:
    """Return the publisher's session id in one of ours. Raises SessionLost for what is none, or somebody else's."""
    try:
        return box.open(base64.b64decode(given + b"=" * (-len(given) % 4), b"-_", validate=True), _context(exchange))
    except (CredentialError, binascii.Error, ValueError):
        raise SessionLost("No session of yours has this Mcp-Session-Id: initialize a new one.") from None


def _context(exchange: Exchange) -> bytes:
    owner = b"nobody" if exchange.principal is None else exchange.principal.account_id.bytes
    return b"mcp session:" + exchange.sold.id.bytes + owner
