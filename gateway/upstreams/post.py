"""One JSON document posted to a service that the operator has configured, through the egress guard.

For external facilitators (gateway/payments/remote). The answer is read whole, up to a bound; redirects are not
followed, and whatever goes wrong is `NoAnswer`: nobody knows then whether the service acted.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.payments.evm.rpc import NoAnswer
from gateway.upstreams.egress import EgressGuard, EgressRefused
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.timeouts import Timeouts

MAX_ANSWER = 262_144
# A settlement is answered when it is in a block.
TIMEOUTS = Timeouts(connect=5.0, first_byte=60.0, idle=10.0, total=75.0)


class Poster:
    """Posts; `client` holds the connections, `guard` says which hosts may be contacted."""

    def __init__(self, client: UpstreamClient, guard: EgressGuard, timeouts: Timeouts = TIMEOUTS) -> None:
        self._client = client
        self._guard = guard
        self._timeouts = timeouts

    async def __call__(self, url: str, fields: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises NoAnswer, whose message names the host at most."""
        try:
            base = self._guard.check_url(url)
            headers = [
                (b"host", base.origin.authority),
                (b"accept", b"application/json"),
                (b"accept-encoding", b"identity"),
            ]
            headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in fields.items()]
            answer = await self._client.send(
                base.origin, b"POST", base.base_path.encode("ascii"), headers, body, self._timeouts
            )
        except (EgressRefused, UpstreamError) as error:
            raise NoAnswer(f"the facilitator cannot be asked: {error}") from None
        try:
            content = await answer.whole(MAX_ANSWER)
            if content is None:
                raise NoAnswer("the facilitator's answer is too long")
            return answer.status, content
        except UpstreamError as error:
            raise NoAnswer(f"the facilitator's answer broke off: {error}") from None
        finally:
            await answer.aclose()
