"""What is measured, as data: a case is one kind of traffic through one door; a plan is a list of sweeps over cases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from benchmarks.traffic import Spread
from gateway.settings import ServerSettings

Kind = Literal["bare", "nginx", "express", "sketch", "litellm", "unpriced", "prepaid"]
OURS: tuple[Kind, ...] = ("unpriced", "prepaid")
PEERS: tuple[Kind, ...] = ("bare", "nginx", "express", "sketch", "litellm")
KINDS: tuple[Kind, ...] = (*PEERS, *OURS)
_SERVER = ServerSettings.model_fields["kind"]
SERVERS: tuple[str, ...] = get_args(_SERVER.annotation)  # all that TOLLWAY_SERVER may name
DEFAULT_SERVER: str = _SERVER.default
MANY, QUICK_MANY = 10_000, 1_000
ENOUGH = 1_000  # so many agents together stay below the limit of a key; fewer have it raised
WORDS = {
    "bare": "bare upstream",
    "express": "Express http-proxy",
    "sketch": "sketch: pure Protocol + httptools, no features",
    "litellm": "LiteLLM pass-through",
}
SHAPE_WORDS = {"large": "1 MiB answers", "upload": "64 KiB uploads", "events": "20 events"}
OTHER = " (other)"  # marks the gateways of another checkout
RAISED, WORKERS = " raised", " x"  # parts of a door's name


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of traffic through one door.

    `server` and `workers` tell whose process it is (empty and 1 where there is but one). `load` 0 is a closed loop;
    otherwise calls come by the clock, at this share of what our prepaid path reaches. `agents` and `publishers` are how
    many there are; who knows no agents has 0. `raised`: with limits that nobody reaches, instead of production's.
    `repeats`: every call has the same target, which real agents' calls do not.
    """

    kind: Kind
    server: str = ""
    workers: int = 1
    shape: str = "small"
    connections: int = 64
    agents: int = 0
    publishers: int = 1
    spread: Spread = "turns"
    load: float = 0.0
    pinned: bool = False
    raised: bool = False
    repeats: bool = False

    @property
    def limits_raised(self) -> bool:
        """Return whether the limits are raised: where few agents make all calls, a key's limit would refuse them."""
        few = 0 < self.agents < ENOUGH or self.spread == "zipf"
        return self.kind in OURS and (self.raised or few)

    @property
    def door(self) -> str:
        """Return the name of the process tree that is called."""
        name = self.server if self.kind in OURS else self.kind
        return name + RAISED * self.limits_raised + (f"{WORKERS}{self.workers}" if self.workers > 1 else "")

    @property
    def name(self) -> str:
        """Return how the tables call it."""
        parts = [WORDS.get(self.kind, self.kind)]
        if self.kind in OURS:
            parts.append(self.server)
        if self.kind == "prepaid":
            parts.append("one agent" if self.agents == 1 else f"{self.agents:,} agents")
            if self.publishers > 1:
                parts.append(f"{self.publishers:,} publishers")
            if self.spread == "zipf":
                parts.append("agents by Zipf")
        if self.workers > 1:
            parts.append(f"{self.workers} workers")
        if self.shape != "small":
            parts.append(SHAPE_WORDS[self.shape])
        if self.load:
            parts.append(f"open loop at {self.load:.0%}")
        if self.limits_raised:
            parts.append("limits raised")
        if self.repeats:
            parts.append("targets repeat")
        if self.pinned:
            parts.append("pinned")
        return ", ".join(parts)


def read_door(door: str) -> tuple[str, bool, int]:
    """Return whose process tree it is, whether its limits are raised, and how many workers it has."""
    name, _, workers = door.removesuffix(OTHER).partition(WORKERS)
    return name.removesuffix(RAISED), name.endswith(RAISED), int(workers or 1)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The product of its fields. Of the peers only nginx has several workers; only prepaid calls differ by agents."""

    kinds: Sequence[Kind] = KINDS
    servers: Sequence[str] = (DEFAULT_SERVER,)
    workers: Sequence[int] = (1,)
    shapes: Sequence[str] = ("small",)
    connections: Sequence[int] = (64,)
    agents: Sequence[int] = (MANY,)
    publishers: Sequence[int] = (1,)
    spreads: Sequence[Spread] = ("turns",)
    load: float = 0.0
    pinned: bool = False
    raised: bool = False
    repeats: bool = False

    def cases(self) -> Iterator[Case]:
        """Yield the cases, each once."""
        fields = (
            self.connections, self.shapes, self.workers, self.kinds, self.servers, self.agents, self.publishers,
            self.spreads,
        )  # fmt: skip
        for connections, shape, workers, kind, server, agents, publishers, spread in itertools.product(*fields):
            if workers > 1 and kind not in (*OURS, "nginx"):
                continue
            case = Case(kind, "", workers, shape, connections, load=self.load, pinned=self.pinned, repeats=self.repeats)
            if kind in OURS:
                case = replace(case, server=server, agents=max(self.agents), raised=self.raised)
            if kind == "prepaid":
                case = replace(case, agents=agents, publishers=publishers, spread=spread)
            yield case


@dataclass(frozen=True, slots=True)
class Plan:
    """A list of sweeps, and how long to look. `extras` are the measurements that are no rounds (experiments/), `rows`
    how many charges the ledger is given where its growth is measured, and `blocks` how the chains make theirs.
    """

    sweeps: Sequence[Sweep]
    rounds: int
    seconds: float
    extras: Sequence[str] = ()
    rows: int = 10_000_000
    blocks: Sequence[str] = ("instant",)

    def cases(self) -> list[Case]:
        """Return all cases, each once, in the order in which the rounds alternate."""
        return list(dict.fromkeys(case for sweep in self.sweeps for case in sweep.cases()))

    def on(self, servers: Sequence[str]) -> Plan:
        """Return the same plan with our gateway on these servers."""
        sweeps = [replace(one, servers=servers) if {*OURS} & {*one.kinds} else one for one in self.sweeps]
        return replace(self, sweeps=sweeps)


CLOSED: tuple[Kind, ...] = ("bare", "nginx", "express", "sketch", *OURS)
BODIES = Sweep(CLOSED, shapes=("large", "upload", "events"), connections=(16,))
TWO_WORKERS = Sweep(("nginx", *OURS), workers=(2,))
HALF_LOAD = Sweep(("bare", "nginx", *OURS), load=0.5, connections=(256,))
ONE_OR_MANY = Sweep(("prepaid",), agents=(1, MANY), publishers=(1, 1000), raised=True)
MARKET = Sweep(("prepaid",), publishers=(1000,), spreads=("zipf",))
# What flatters: targets that repeat, and limits that are never near (ONE_OR_MANY has them too, all its rows alike).
FLATTERED = (Sweep(OURS, repeats=True), Sweep(OURS, raised=True))
EXTRAS = ("writes", "overload", "idle", "startup", "x402", "profiles")
LONG = ("workers", "sustained")

STANDARD = (
    Sweep(connections=(1, 16, 64, 256)),
    Sweep(OURS, servers=SERVERS, connections=(16, 64)),
    TWO_WORKERS, BODIES, HALF_LOAD, ONE_OR_MANY, MARKET, *FLATTERED,
)  # fmt: skip

PLANS = {
    "quick": Plan(
        [
            Sweep(CLOSED, connections=(4,), agents=(QUICK_MANY,)),
            Sweep(("prepaid",), connections=(4,), agents=(QUICK_MANY, 1), publishers=(1, 5), raised=True),
            Sweep(CLOSED, connections=(256,), agents=(QUICK_MANY,), load=0.5),
        ],
        1, 1.0, ("writes", "overload", "idle", "startup"),
    ),
    "goals": Plan(
        [Sweep(CLOSED, connections=(16, 64)), Sweep(("bare", *OURS), load=0.5, connections=(256,)), *FLATTERED],
        5, 3.0, ("overload", "workers", "sustained", "profiles"),
    ).on((DEFAULT_SERVER,)),
    "standard": Plan(STANDARD, 3, 2.5, EXTRAS),
    "complete": Plan(STANDARD, 3, 2.0, (*EXTRAS, *LONG, "growth"), 1_000_000, ("instant", "2")),
    "report": Plan(
        [
            Sweep(servers=SERVERS, connections=(1, 16, 64, 256)),
            Sweep(("nginx", *OURS), servers=SERVERS, workers=(2,), connections=(16, 64)),
            Sweep(connections=(16, 64), pinned=True),
            Sweep(CLOSED, shapes=("large", "upload", "events"), connections=(1, 16, 64)),
            Sweep(("bare", "nginx", *OURS), load=0.5, connections=(256,), servers=SERVERS),
            Sweep(("prepaid",), agents=(1, MANY), publishers=(1, 1000), connections=(16, 64), raised=True),
            Sweep(("prepaid",), publishers=(1000,), spreads=("turns", "zipf"), connections=(16, 64)),
            *FLATTERED,
        ],
        4, 4.0, (*EXTRAS, *LONG, "growth"), blocks=("instant", "2"),
    ),
    "growth": Plan([], 3, 4.0, ("growth",)),
}  # fmt: skip
