"""Calls in their callers' names: before anything is paid, the caller's own token has to be there.

Only publishers that ask for it pay for the look-up, which is one dictionary probe while the token is known. What does
not live here: where tokens come from (upstreams/auth/callers.py).
"""

from __future__ import annotations

import logging

from gateway.errors import Unauthenticated, UpstreamUnreachable
from gateway.proxy.exchange import Exchange
from gateway.services import Services
from gateway.telemetry.logging import of
from gateway.upstreams.auth.errors import TokenUnavailable

log = logging.getLogger(__name__)


async def speak_for(exchange: Exchange, services: Services) -> None:
    """Have the caller's token at hand.

    Raises ConnectionNeeded, Unauthenticated, KindNotServed or UpstreamUnreachable.
    """
    plan = exchange.sold.user_oauth
    if plan is None:
        return
    if exchange.principal is None:
        raise Unauthenticated(
            "This publisher is called in its callers' names: send the API key of an account that has connected to its"
            " OAuth provider. Nothing was sent or charged."
        )
    own = services.callers.of(plan, exchange.principal.account_id)
    try:
        await own.token(str(exchange.id))
    except TokenUnavailable as error:
        log.warning("no token of a caller's: %s", error, extra=of(exchange.id))
        raise UpstreamUnreachable(
            "The OAuth provider that this publisher is called by cannot renew your token now; nothing was sent or"
            " charged. Try again."
        ) from None
    exchange.own = own
