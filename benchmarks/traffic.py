"""What the callers of a case send: which shape, by which agents, to which publishers.

No two requests have the same target: where a head has the mark, the generator writes digits that never come again. So
nothing that remembers whole requests helps here, as it would not with real agents. A case may ask for the opposite.

Agents take turns, or are drawn by Zipf's law (the k-th is called 1/k as often as the first), as publishers always are
when there are several. Draws are the same in every run.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.plain_http import HOST

Spread = Literal["turns", "zipf"]
DRAWS = 50_000
MARK = "~" * 16  # load.c writes 16 hexadecimal digits over it
SAME = "0" * len(MARK)  # what stands there where all targets are the same
RESOURCE = "v1/companies/{}/filings"  # of an upstream, with an identifier of the usual length
QUERY = "?from=2026-01-01&to=2026-03-31&fields=name,price&limit=50"


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of call: the last part of its path, and the size of the body that it brings."""

    last: str
    body: int = 0

    @property
    def method(self) -> str:
        """Return its HTTP method."""
        return "POST" if self.body else "GET"


SHAPES = {
    "small": Shape("x"),
    "large": Shape("large"),
    "upload": Shape("x", 64 * 1024),
    "events": Shape("events"),
}


def zipf(number: int, draws: int, seed: int = 7) -> list[int]:
    """Draw indexes below `number`, the k-th with a weight of 1/k."""
    weights = [1 / rank for rank in range(1, number + 1)]
    return random.Random(seed).choices(range(number), weights, k=draws)


def target(base: str, shape: Shape, *, repeats: bool = False) -> str:
    """Return what is asked for below `base`: another one each time, or always the same."""
    return f"{base}/{RESOURCE.format(SAME if repeats else MARK)}/{shape.last}{QUERY}"


def heads(
    shape: Shape, bases: Sequence[str], keys: Sequence[str], spread: Spread = "turns", *, repeats: bool = False
) -> Iterator[bytes]:
    """Yield request heads in the order in which they are sent. No keys: nobody says who they are."""
    targets = [target(base, shape, repeats=repeats) for base in bases]
    draws = DRAWS if len(targets) > 1 or spread == "zipf" else max(len(keys), 1)
    places = zipf(len(targets), draws) if len(targets) > 1 else itertools.repeat(0, draws)
    if spread == "zipf":
        callers = iter(zipf(max(len(keys), 1), draws, seed=11))
    else:
        callers = itertools.cycle(range(max(len(keys), 1)))
    length = f"Content-Length: {shape.body}\r\n" if shape.body else ""
    for place, caller in zip(places, callers, strict=False):
        key = f"Authorization: Bearer {keys[caller]}\r\n" if keys else ""
        yield f"{shape.method} {targets[place]} HTTP/1.1\r\nHost: {HOST}\r\n{key}{length}\r\n".encode()


def write_heads(file: Path, lines: Iterator[bytes]) -> Path:
    """Write them where the load generator reads them."""
    file.write_bytes(b"".join(lines))
    return file
