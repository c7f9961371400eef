"""The tests of answers, connections and WebSockets once more on uvloop, on which the server runs outside of tests."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import uvloop

from tests.server import test_answers, test_connections, test_leftovers, test_websockets
from tests.server.conftest import on_stage


def scenarios() -> Iterator[Any]:
    """Yield every test of a stage, with its parameters bound."""
    for module in (test_answers, test_connections, test_leftovers, test_websockets):
        for name, function in vars(module).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(function) and "caplog" not in names(function):
                for number, arguments in enumerate(bindings(function)):
                    yield pytest.param(function, arguments, id=f"{name}-{number}")


def names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def bindings(function: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(mark.args[1] for mark in marks)):
        yield {mark.args[0]: value for mark, value in zip(marks, values, strict=True)}


@pytest.mark.parametrize(("function", "arguments"), list(scenarios()))
def test_on_uvloop(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    failures: list[BaseException] = []

    async def scenario() -> None:
        async with on_stage() as stage:
            await function(stage, **arguments)

    def run() -> None:
        try:
            uvloop.run(scenario())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)  # the suite's own loop runs in this one
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    if failures:
        raise failures[0]
