"""All wire tests once more on uvloop, on which gateways run: its transports differ in detail from asyncio's."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from . import test_client, test_connection, test_dial, test_pool, test_stale, test_upload


def scenarios() -> Iterator[Any]:
    """Yield every coroutine test with its parameters bound."""
    for module in (test_client, test_connection, test_dial, test_pool, test_stale, test_upload):
        for name, function in vars(module).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(function) and name not in ASYNCIO_ONLY:
                for number, arguments in enumerate(bindings(function)):
                    yield pytest.param(function, arguments, id=f"{module.__name__[-10:]}-{name}-{number}")


# They replace what uvloop does not let be replaced: a method of the loop, the getaddrinfo of the socket module; or they
# ask of a socket what it knows when uvloop has closed it already.
ASYNCIO_ONLY = {
    "test_one_timer_serves_many_calls",
    "test_over_tls_an_end_without_close_notify",
    "test_the_socket_goes_to_the_checked_address_without_a_second_resolution",
}


def bindings(function: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return the keyword arguments of each case that the parametrize marks describe."""
    cases: list[dict[str, Any]] = [{}]
    for mark in getattr(function, "pytestmark", []):
        names, values = mark.args[0], list(mark.args[1])
        bound = [
            dict(zip(names, value, strict=True)) if isinstance(names, tuple) else {names: value} for value in values
        ]
        cases = [{**case, **extra} for case in cases for extra in bound]
    return cases


@pytest.mark.parametrize(("function", "arguments"), list(scenarios()))
def test_on_uvloop(function, arguments, certificate):
    if "certificate" in inspect.signature(function).parameters:
        arguments = {**arguments, "certificate": certificate}
    # In a thread of its own: the session's asyncio loop stays this thread's.
    failures: list[BaseException] = []

    def run() -> None:
        try:
            uvloop.run(function(**arguments))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
