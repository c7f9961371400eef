"""The servers below the gateway, for tests that hold on each: our own, the default, always; hypercorn with `slow`.

A test is parametrized by EACH. Fixtures that start a gateway per server start those that the selected tests need; a
module whose tests name a server themselves lists it in NAMES.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import pytest

PLAIN = ("tollway",)
SERVERS = (*PLAIN, "hypercorn")
EACH = [pytest.param(name, marks=() if name in PLAIN else pytest.mark.slow) for name in SERVERS]
DEFAULT = "tollway"
NAMES = "NAMES_SERVERS"


def wanted(items: Iterable[pytest.Item]) -> list[str]:
    """Return the servers that some tests need, the default one among them."""
    names = {DEFAULT}
    for item in items:
        module = item.getparent(pytest.Module)
        if module is not None and isinstance(module.obj, ModuleType):
            names.update(getattr(module.obj, NAMES, ()))
        spec = getattr(item, "callspec", None)
        names.update(value for value in (spec.params.values() if spec else ()) if value in SERVERS)
    return [name for name in SERVERS if name in names]
