"""What goes wrong with publishers' tokens."""

from __future__ import annotations

from gateway.upstreams.http.errors import ConnectError


class TokenUnavailable(ConnectError):
    """There is no token to call with; the publisher's server was not contacted.

    The message is for the publisher: it says what the token server answered, never what was sent or got.
    """
