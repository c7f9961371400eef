"""granian on a listening socket that it has not opened itself."""

from __future__ import annotations

from typing import Any, cast

from granian.net import SocketHolder  # pyright: ignore[reportPrivateImportUsage]
from granian.server import MPServer

from gateway.cli.inherited import Listener


class InheritingServer(MPServer):
    """Serves on `listener`, where there is one. Workers are forked, and find its descriptor as it is here."""

    listener: Listener | None = None

    def _init_shared_socket(self) -> None:
        if self.listener is None:
            super()._init_shared_socket()
        else:
            # The server's own attributes: what workers bind, what they listen on instead, and the parent's copy of it.
            self._ssp, self._sso = None, None
            self._shd = cast(Any, SocketHolder)(self.listener.fileno(), False, self.backlog)
