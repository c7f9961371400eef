"""One door per foreign system: who may import what, and the purity of what decides."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.house.source import PACKAGES, Module, imports, modules

# What is imported from outside the standard library, or reaches outside of the process -> the folders that may.
DOORS: dict[str, tuple[str, ...]] = {
    # Both in one place: what lets calls in at publishers' servers.
    "argon2": ("gateway/identity/passwords.py",),
    "authlib": ("gateway/upstreams/auth",),
    "fontTools": ("gateway/billing/invoices/pdf.py",),
    "fpdf": ("gateway/billing/invoices/pdf.py",),
    "manimgx_fonts": ("gateway/billing/invoices/pdf.py",),
    "noto_cjk_sans_jp_regular": ("gateway/billing/invoices/pdf.py",),
    "uharfbuzz": ("gateway/billing/invoices/pdf.py",),
    "jinja2": ("admin_api/store", "admin_api/account", "admin_api/invoices"),
    "joserfc": ("gateway/upstreams/auth",),
    "asyncpg": (
        "gateway/database",
        "gateway/upstreams/postgres",
        "gateway/ids.py",  # its UUID only
    ),
    "click": ("gateway/cli",),
    "coincurve": ("gateway/payments",),
    # Keccak-256, also for the checksum of an address in a publisher's form.
    "Crypto": ("gateway/payments", "gateway/eip55.py"),
    "cryptography": (
        "gateway/upstreams/credentials.py",
        "gateway/billing/receipts.py",
        "gateway/payments/evm",
        "gateway/cli/opening.py",  # reads the dates of the operator's certificate
        "gateway/catalog/authentication.py",  # says of a publisher's key whether it is one, and signs nothing
    ),
    "fastapi": ("admin_api",),
    "hiredis": ("gateway/limits",),
    "httptools": ("gateway/upstreams/http", "gateway/devservices"),
    "h11": ("gateway/cli",),
    "h2": ("gateway/cli",),
    # Calls that are not a publisher's and not hot: the chain's nodes, and token servers (over our own connections).
    "httpx": ("gateway/payments", "gateway/upstreams/transport.py", "gateway/upstreams/auth"),
    "hypercorn": ("gateway/cli",),
    # The form of an answer, as orjson is.
    "nanoarrow": ("gateway/proxy/query_arrow.py",),
    "prometheus_client": ("gateway/telemetry",),
    "postgast": ("pricing/sql",),
    "google": ("pricing/sql",),  # protobuf, in which postgast gives its trees
    "stripe": ("gateway/payments/stripe",),
    "starlette": ("admin_api",),
    "uvloop": ("gateway/devservices", "gateway/cli", "gateway/server"),
    # Publishers' OpenAPI documents; its parser only, none of its loaders.
    "yaml": ("gateway/catalog/openapi",),
    "wsproto": ("gateway/upstreams", "gateway/cli", "gateway/server"),
    # Languages that everybody speaks.
    "orjson": ("gateway", "admin_api"),
    "pydantic": ("gateway", "admin_api"),
    # The operating system and the network.
    # cut.py ends a caller's connection of this process; it opens none.
    "socket": (
        "gateway/upstreams/egress.py",
        "gateway/cli/operations_door.py",  # listens only
        "gateway/cli/inherited.py",  # listens only
        "gateway/service_manager.py",  # one datagram to systemd's socket
        "gateway/devservices",
        "gateway/proxy/cut.py",
        # Listens, and resets connections of callers.
        "gateway/server",
    ),
    "subprocess": ("gateway/devservices",),
    "http.client": ("gateway/devservices",),
    "urllib.request": ("gateway/cli/receipt.py",),
    "smtplib": ("gateway/mail",),
    "sqlite3": (),
    "pickle": (),
}
# What the pure core may not touch: the clock, chance, the world outside.
IMPURE = frozenset(
    {"asyncio", "contextvars", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets"}
    | {"select", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"}
)
# Calls that open a connection -> the folders that may.
CONNECT = ("open_connection", "create_connection", "create_datagram_endpoint", "start_server", "getaddrinfo")
CONNECTORS = ("gateway/upstreams", "gateway/limits", "gateway/devservices")


def door_of(name: str) -> str | None:
    """Return the entry of DOORS that a module's name falls under; "?" for one that has none but needs one."""
    top = name.partition(".")[0]
    for known in (name, top):
        if known in DOORS:
            return known
    return None if top in sys.stdlib_module_names or top in PACKAGES else "?"


def trespasses(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        door = door_of(name)
        if door == "?":
            yield f"{module.path}:{line} imports {name}, which has no door in tests/house/test_doors.py"
        elif door is not None and not module.within(*DOORS[door]):
            yield f"{module.path}:{line} imports {name}, which only {', '.join(DOORS[door]) or 'nobody'} may"


def test_every_foreign_system_has_one_door() -> None:
    assert [line for module in modules() for line in trespasses(module)] == []


def test_every_door_is_used() -> None:
    used = {door_of(name) for module in modules() for _, name in imports(module)}
    assert {door for door, folders in DOORS.items() if folders} <= used


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("gateway/ledger/x.py", "import asyncpg"),
        ("gateway/proxy/x.py", "from hiredis import Reader"),
        ("gateway/jobs/x.py", "def f():\n    import httpx"),
        ("pricing/x.py", "from pydantic import BaseModel"),
        ("gateway/catalog/x.py", "import requests"),
        ("admin_api/x.py", "import urllib.request"),
    ],
)
def test_a_trespass_would_be_found(path: str, line: str) -> None:
    assert len(list(trespasses(Module(path, line)))) == 1


def connections(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.lines, 1):
        if any(f".{name}(" in line for name in CONNECT):
            yield f"{module.path}:{number}"


def test_only_the_doors_open_connections() -> None:
    assert [place for module in modules() if not module.within(*CONNECTORS) for place in connections(module)] == []
    assert [place for module in modules(*CONNECTORS) for place in connections(module)] != []


def impurities(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        top = name.partition(".")[0]
        if top in IMPURE | {"gateway", "admin_api"}:
            yield f"{module.path}:{line} imports {name}"
    for number, line in enumerate(module.lines, 1):
        if ".now(" in line or ".today(" in line or "open(" in line:
            yield f"{module.path}:{number} reads the clock or a file"


def test_prices_know_no_io_no_clock_and_no_framework() -> None:
    assert [line for module in modules("pricing") for line in impurities(module)] == []


@pytest.mark.parametrize(
    "line", ["import time", "from os import environ", "from gateway.errors import Problem", "datetime.now()"]
)
def test_an_impurity_would_be_found(line: str) -> None:
    assert len(list(impurities(Module("pricing/x.py", line)))) == 1
