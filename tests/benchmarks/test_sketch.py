"""The sketch of a proxy passes on what the benchmark sends and answers, whole and unchanged, and keeps connections."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from benchmarks.plain_http import HOST
from benchmarks.stack import Doors, Running, Services, start_upstream
from benchmarks.traffic import SHAPES, target
from benchmarks.upstream import LARGE

Connect = Callable[[Running], http.client.HTTPConnection]
Answer = tuple[int, dict[str, str], bytes]
DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return what opens connections that are closed in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda to: stack.enter_context(contextlib.closing(http.client.HTTPConnection(HOST, to.port, timeout=30)))


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """Run an upstream and a sketch in front of it."""
    with contextlib.ExitStack() as stack:
        upstream = start_upstream(stack, tmp_path)
        stores = cast("Services", None)  # it has none
        yield upstream, Doors(stack, tmp_path, stores, upstream, complete=True).sketch(1)


def ask(connection: http.client.HTTPConnection, shape: str) -> Answer:
    """Send one request of a shape on a connection and read its answer."""
    wanted = SHAPES[shape]
    path = target("/bare", wanted)
    connection.request(wanted.method, path, body=b"x" * wanted.body or None, headers={"Authorization": "Bearer k"})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_every_shape_comes_as_the_upstream_answers_it_on_one_connection(
    proxies: tuple[Running, Running], connect: Connect
) -> None:
    upstream, sketch = proxies
    straight, through = connect(upstream), connect(sketch)
    for shape in ("small", "large", "upload", "events", "small"):
        wanted, answered = ask(straight, shape), ask(through, shape)
        assert DATE.fullmatch(answered[1].pop("date"))
        wanted[1].pop("date")
        assert answered == wanted
    assert len(ask(through, "large")[2]) == LARGE
    assert through.sock is not None, "it was kept"


def test_a_caller_who_reads_late_has_the_whole_answer(proxies: tuple[Running, Running], connect: Connect) -> None:
    """Answers of many times what buffers hold: the sketch has to stop reading from the upstream, and go on."""
    sketch = proxies[1]
    late = [connect(sketch) for _ in range(8)]
    for connection in late:
        connection.request("GET", target("/bare", SHAPES["large"]))
    assert ask(connect(sketch), "small")[0] == 200
    assert [len(connection.getresponse().read()) for connection in late] == [LARGE] * len(late)
    assert [ask(connection, "small")[0] for connection in late] == [200] * len(late)


def test_an_upstream_that_is_gone_is_a_502(proxies: tuple[Running, Running], connect: Connect) -> None:
    upstream, sketch = proxies
    upstream.child.stop()
    assert ask(connect(sketch), "small")[0] == 502
