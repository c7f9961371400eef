"""The protocol of what pays a call, and the purse of calls that have none yet.

    claim       make sure that no other call runs, or ran, by the same key or payment
    demand      refuse early who could not pay, before work is done for the call
    authorize   take, hold or reserve the money, durably, before the upstream hears of the call
    settle_ahead, keep
                before the caller has (all of) the answer: settle, and store the answer with its money
    end         once, whatever happened: kept, captured or given back, by the rule in billing/
    fields      what the answer's head says of all this

What does not live here: which purse pays a call (choice.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from gateway.billing import prepaid_credits
from gateway.billing.prepaid_credits import Ending

if TYPE_CHECKING:
    from gateway.proxy.destination import Destination
    from gateway.proxy.exchange import Exchange, HeaderPairs
    from gateway.upstreams.http.response import UpstreamResponse

    Ask: TypeAlias = Callable[[HeaderPairs], Coroutine[Any, Any, UpstreamResponse]]

FREE_OF_CHARGE = (b"x-cost", b"0")


class Purse:
    """Pays nothing. The others say what they do beyond."""

    __slots__ = ()

    relays: ClassVar[bool] = False
    """Whether the publisher's server sells by itself, to callers whose payments pass through."""
    without_key: ClassVar[bool] = False
    """Whether its calls have no Authorization field, which is what keeps their answers out of shared caches."""
    keeps_refusals: ClassVar[bool] = True
    """Whether a refusal after the upstream may have seen the call is stored for its key."""

    waits_for_chain: ClassVar[bool] = False
    """Whether authorizing may take as long as a chain does: neither a database nor load shedding waits for it."""
    settles_in_keeping: ClassVar[bool] = False
    """Whether keeping an answer settles its payment, which the answer's fields tell."""

    @property
    def paid(self) -> bool:
        """Return whether money has moved, or is set aside, for the call."""
        return False

    @property
    def signer(self) -> bytes | None:
        """Return the address of the wallet that signed for the call, if one has."""
        return None

    async def claim(self, exchange: Exchange) -> bool:
        """Claim the call's key or payment; False: its call was made before, and was answered from store."""
        return True

    async def demand(self, exchange: Exchange) -> None:
        """Raise Shortfall for a caller that cannot pay at all."""

    async def authorize(self, exchange: Exchange) -> None:
        """Take or set aside what the call costs. Raises Shortfall or another Problem; then nothing has moved."""

    def see_through(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Return the work of asking, delivering and ending, as it is to be awaited."""
        return work

    async def buy(self, exchange: Exchange, to: Destination, answer: UpstreamResponse, ask: Ask) -> UpstreamResponse:
        """Return the upstream's answer, or that which it gives when the gateway has paid what this one asks for."""
        return answer

    async def look(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        """Look at an answer that is paid, before its head goes out. Raises UpstreamError when it breaks off."""

    async def settle_ahead(self, exchange: Exchange) -> None:
        """Settle for an answer that cannot be kept before it is delivered, such as a connection."""

    async def keep(self, exchange: Exchange, headers: HeaderPairs, body: bytes | None) -> None:
        """Store the answer with the end of its money, both or neither, durably, where it can be asked for again.

        `body` is None where it is too large. Raises Unavailable: then the caller must not have (all of) the answer.
        """

    def keep_later(self, exchange: Exchange) -> None:
        """The same without waiting and without a body, for what was delivered as it came and cannot be taken back."""

    def interrupted(self, exchange: Exchange) -> None:
        """Note that what was settled ahead ends before its end: a connection whose task is cancelled."""

    async def end(self, exchange: Exchange, ending: Ending) -> bool:
        """End the money of a call once, by the rule, and return whether it was given back."""
        if exchange.outcome not in ("settled", "refunded"):
            exchange.outcome = "free" if ending in prepaid_credits.ANSWERED else "refused"
        return exchange.outcome == "refunded"

    def fields(self, exchange: Exchange, *, refunded: bool) -> HeaderPairs:
        """Return what the call cost and what is left, in decimals of the asset (docs/agents.md)."""
        return [FREE_OF_CHARGE]

    def announce_trailer(self, exchange: Exchange) -> bool:
        """Return whether the cost is said behind the body, because the head cannot know it; then it will be."""
        return False

    def trailer(self, exchange: Exchange) -> HeaderPairs:
        """Return what is said of the cost behind the body, if that was announced."""
        return []


UNPAID = Purse()
