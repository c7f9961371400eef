"""Leases keep GCRA's promise, whatever calls, replies, pauses and crashes come in which order.

Workers and Valkey have clocks of their own here; Valkey is its Python twin (bucket.py, which test_gcra.py holds to the
script).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.gcra import SCRIPT, Call, Reply
from gateway.limits.lease import CAPACITY, KEEP, LIFE, Lease, Leases, give_back
from gateway.limits.policy import MICROSECONDS, Check, Policy, Verdict
from tests.limits.bucket import SHARE, Bucket

START = 1_800_000_000_123_457
POLICIES = [
    Policy("tiny", limit=10, window_seconds=60),
    Policy("usual", limit=600, window_seconds=60),
    Policy("fast", limit=70_001, window_seconds=60, burst=600),
    Policy("minute", limit=6_000, window_seconds=60, burst=600),
    Policy("slow", limit=300, window_seconds=3_600),
]


@dataclass
class Sent:
    """A call on its way to Valkey, or the reply on its way back."""

    call: Call
    spent: list[tuple[Lease, Check]]
    at: int
    spent_at: int = 0
    reply: Reply | None = None


@dataclass
class World:
    """Valkey and its workers, with what was admitted when, by key, on a clock that all of them can be compared by."""

    workers: int
    now: int = 0
    bucket: Bucket = field(default_factory=Bucket)
    admitted: dict[bytes, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flights: list[deque[Sent]] = [deque() for _ in range(self.workers)]
        self.leases = [self.worker(n) for n in range(self.workers)]

    def clock(self, n: int) -> int:
        """Return a worker's clock; no two agree."""
        return self.now + (n + 1) * 7_777_777_777

    def worker(self, n: int) -> Leases:
        return Leases(lambda call: self.flights[n].append(Sent(call, [], self.clock(n))), clock=lambda: self.clock(n))

    def call(self, n: int, *checks: Check) -> Verdict | None:
        """Let a call come to a worker. None: it has asked Valkey, or will when the message is delivered."""
        verdict = self.leases[n].spend(checks)
        if verdict is not None:
            self.note(checks, self.now)
            return verdict
        call, spent = self.leases[n].ask(checks)
        if call.checks:
            self.flights[n].append(Sent(call, spent, self.clock(n), self.now))
        else:
            self.note(checks, self.now)
        return None

    def deliver(self, n: int) -> None:
        """Let Valkey see the oldest message of a worker that it has not seen."""
        for sent in self.flights[n]:
            if sent.reply is None:
                sent.reply = Reply(sent.at, START + self.now, counts := self.bucket.decide(sent.call, START + self.now))
                if min(counts[::2]) >= 0 and sent.call.checks[0].cost:
                    self.note(sent.call.checks, self.now)
                    self.note([check for _, check in sent.spent], sent.spent_at)
                return

    def answer(self, n: int) -> bool | None:
        """Let a worker see the oldest reply, and return whether Valkey let the call pass."""
        if not self.flights[n] or self.flights[n][0].reply is None:
            return None
        sent = self.flights[n].popleft()
        assert sent.reply is not None
        passed = min(sent.reply.counts[::2]) >= 0
        if not passed:
            give_back(sent.spent)
        if sent.call.granted is not None:
            sent.call.granted(sent.call, sent.reply)
        return passed

    def settle(self, n: int) -> bool | None:
        """Let all messages of a worker through, and return whether the last call passed."""
        passed = None
        while self.flights[n]:
            self.deliver(n)
            passed = self.answer(n)
        return passed

    def crash(self, n: int) -> None:
        self.flights[n].clear()
        self.leases[n] = self.worker(n)

    def note(self, checks, at: int) -> None:
        for check in checks:
            self.admitted.setdefault(check.key, []).append(at)


def kept(times: list[int], policy: Policy) -> bool:
    """Say whether no stretch of time has more than the burst and what the rate gives in it."""
    # Calls number i to j are within both when (j - i + 1) intervals are at most the tolerance and the time between
    # them: when number j's time less its intervals is not that far behind the latest such value before it.
    latest = -(1 << 62)
    for number, at in enumerate(sorted(times)):
        spare = at - number * policy.interval
        latest = max(latest, spare)
        if latest - spare > policy.tolerance - policy.interval:
            return False
    return True


moments = st.one_of(st.integers(1, 3_000), st.integers(1, 100_000), st.integers(1, 1_500_000))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.integers(0, 3), st.integers(1, 60)),
        st.tuples(st.just("calls on their way"), st.integers(0, 3), st.integers(1, 5)),
        st.tuples(st.just("time"), st.integers(0, 3), moments),
        st.tuples(st.sampled_from(["deliver", "answer", "settle", "crash"]), st.integers(0, 3), st.just(1)),
    ),
    min_size=5,
    max_size=40,
)


def play(world: World, checks: tuple[Check, ...], events) -> None:
    for event, who, much in events:
        n = who % world.workers
        if event == "time":
            world.now += much
        elif event == "calls":
            for _ in range(much):
                world.call(n, *checks)
                world.settle(n)
        elif event == "calls on their way":
            for _ in range(much):
                world.call(n, *checks)
        else:
            getattr(world, event)(n)


def hammer(world: World, checks: tuple[Check, ...]) -> None:
    """Call until every worker refuses."""
    for n in range(world.workers):
        world.settle(n)
        while world.call(n, *checks) is not None or world.settle(n) is not False:
            pass


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(POLICIES), st.integers(1, 4), st.booleans(), steps)
def test_no_order_of_events_admits_more_than_burst_and_rate(policy: Policy, workers: int, two: bool, events) -> None:
    world, own, shared = World(workers), Check("a", policy), Check("org", POLICIES[1])
    checks = (own, shared) if two else (own,)
    play(world, checks, events)
    hammer(world, checks)
    assert kept(world.admitted.get(own.key, []), policy)
    assert kept(world.admitted.get(shared.key, []), shared.policy)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(POLICIES), steps)
def test_whatever_was_lost_has_come_back_after_the_window(policy: Policy, events) -> None:
    world, check = World(2), Check("a", policy)
    play(world, (check,), events)
    world.crash(0)
    world.crash(1)
    world.now += policy.window_seconds * MICROSECONDS + LIFE
    world.admitted.clear()
    hammer(world, (check,))
    assert len(world.admitted[check.key]) == policy.capacity


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(POLICIES), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 400_000)), max_size=40))
def test_a_worker_by_itself_never_promises_more_than_there_is(policy: Policy, rounds) -> None:
    """As many calls as `r` says pass at once, if not more."""
    world, check = World(1), Check("a", policy)
    for calls, pause in rounds:
        for _ in range(calls):
            verdict = world.call(0, check)
            world.settle(0)
            if verdict is not None:
                last = verdict.remaining
                left = world.bucket.left(check.key, policy.interval, policy.tolerance, START + world.now)
                key = world.leases[0]._keys[check.key]
                here = [lease.unspent(world.clock(0)) // policy.interval for lease in (key.lease, key.spare) if lease]
                assert last <= left + sum(here)
                assert verdict.retry_after == 0 or last == 0
        world.now += pause


def test_the_share_and_the_life_are_those_of_the_script() -> None:
    assert f"local LIFE = {LIFE} ".encode() in SCRIPT
    assert f"local SHARE = {SHARE} ".encode() in SCRIPT


def test_calls_that_come_rarely_ask_every_time_and_lease_nothing() -> None:
    world, check = World(1), Check("a", POLICIES[1])
    for _ in range(20):
        assert world.call(0, check) is None
        sent = world.flights[0][0]
        assert not any(sent.call.wants)
        world.settle(0)
        world.now += LIFE


def test_a_limit_below_fifty_is_exact_call_by_call_on_several_workers() -> None:
    world, check = World(3), Check("a", POLICIES[0])
    passed = 0
    for number in range(30):
        assert world.call(number % 3, check) is None
        passed += world.settle(number % 3) is True
    assert passed == 10


def test_a_busy_key_asks_once_for_many_calls_and_never_waits() -> None:
    """100 calls a second of 6,000 a minute, for a minute: the next lease is there before the last has been spent."""
    world, check = World(1), Check("a", Policy("key", 6_000, 60))
    waited = asked = 0
    for _ in range(6_000):
        waited += world.call(0, check) is None
        asked += len(world.flights[0])
        assert world.settle(0) is not False
        world.now += 10_000
    assert waited <= 3
    assert asked < 300
    assert len(world.admitted[check.key]) == 6_000


def test_a_burst_gets_all_of_its_limit_before_it_is_refused() -> None:
    """On two workers, of which one has the end of a lease when the other has nothing left."""
    world, policy = World(2), Policy("key", 2_000, 60)
    check, calls, refused = Check("a", policy), 0, set[int]()
    while refused != {0, 1}:
        n = calls % 2
        calls += 1
        if world.call(n, check) is None and world.settle(n) is False:
            refused.add(n)
        assert calls < 10_000
    assert len(world.admitted[check.key]) == 2_000


def test_what_one_worker_did_not_spend_is_its_own_again_when_nobody_asked_meanwhile() -> None:
    world, check = World(1), Check("a", Policy("key", 6_000, 60))
    for _ in range(3_000):  # half of the burst at once, so that nothing lapses
        world.call(0, check)
        world.settle(0)
    world.now += LIFE
    spent = 0
    while world.call(0, check) is not None or world.settle(0):
        spent += 1
    assert spent == 3_100  # the other half, and what came back in the second


def test_a_crashed_worker_takes_three_in_a_hundred_with_it_at_most() -> None:
    world, check = World(2), Check("a", Policy("key", 6_000, 60))
    for _ in range(200):
        world.call(0, check)
        world.settle(0)
    before = len(world.admitted[check.key])
    world.crash(0)
    passed = 0
    while world.call(1, check) is not None or world.settle(1):
        passed += 1
    assert 5_820 <= before + passed <= 6_000


def test_a_call_that_one_limit_refuses_consumes_from_none() -> None:
    world, wide, narrow = World(1), Check("a", Policy("wide", 6_000, 60)), Check("a", Policy("narrow", 40, 60))
    for _ in range(200):
        world.call(0, wide, narrow)
        world.settle(0)
    assert len(world.admitted[narrow.key]) == 40
    alone = 0
    while world.call(0, wide) is not None or world.settle(0):
        alone += 1
    assert alone == 6_000 - 40


def test_a_lost_reply_stops_no_later_lease() -> None:
    world, check = World(1), Check("a", Policy("key", 6_000, 60))
    for _ in range(3):
        world.call(0, check)
    world.flights[0].clear()
    world.now += LIFE // 2
    for _ in range(5):
        world.call(0, check)
        world.settle(0)
    assert world.call(0, check) is not None


def test_ten_thousand_keys_are_held_and_the_idle_are_forgotten() -> None:
    world = World(1)
    for number in range(CAPACITY + 10):
        world.call(0, Check(f"agent-{number}", POLICIES[1]))
        world.flights[0].clear()
    assert len(world.leases[0]) == CAPACITY
    world.now += KEEP + 1
    world.call(0, Check("another", POLICIES[1]))
    assert len(world.leases[0]) == 1


def test_leases_of_two_workers_that_took_turns_lapse_apart_from_each_other() -> None:
    """Each has a stretch before and one after the other's. Were a worker's two joined, they would lapse too late."""
    policy = Policy("key", 6_000, 60, burst=600)
    check = Check("a", policy)
    for calls in range(3, 20):
        for late in range(1, 20):
            world = World(2)
            for n in (0, 1, 0, 1):
                for _ in range(calls):
                    world.call(n, check)
                    world.settle(n)
            world.now += 10_000 * late
            hammer(world, (check,))
            assert kept(world.admitted[check.key], policy)


def test_what_is_leased_lapses_from_the_time_when_it_was_asked_for() -> None:
    """Valkey counted as early as that; a reply that was long on its way does not make it last longer."""
    world, policy = World(1), Policy("key", 6_000, 60, burst=600)
    check = Check("a", policy)
    for _ in range(3):
        world.call(0, check)
    world.deliver(0)
    world.deliver(0)
    world.now += 200_000
    hammer(world, (check,))
    assert kept(world.admitted[check.key], policy)
