"""The gateway with a name server of the test's: names and addresses in a JSON file that may change at any time.

Run by TOLLWAY_DEV_APP. Every question is noted beside the file, so that a test can tell who asked how often.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from gateway.upstreams import egress

NAMES = Path(os.environ["TOLLWAY_TEST_NAMES"])


async def resolve(host: str, _port: int) -> Sequence[str]:
    """Return what the file says now."""
    with NAMES.with_suffix(".asked").open("a") as asked:
        asked.write(host + "\n")
    found = json.loads(NAMES.read_text()).get(host)
    if found is None:
        raise OSError("no such name")
    return found


egress._system_resolver = resolve
defaults = egress.EgressGuard.__init__.__kwdefaults__
assert defaults is not None
defaults["ttl"] = 0.05

from gateway.cli.asgi import application  # noqa: E402, F401
