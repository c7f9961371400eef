"""The HTTP/1.1 client of the paid path. Start with client.py; connection.py is the state machine."""

from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.pool import PoolCounts
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Origin

__all__ = ["Origin", "PoolCounts", "Timeouts", "UpstreamClient", "UpstreamResponse"]
