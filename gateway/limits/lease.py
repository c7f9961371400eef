"""Leases: calls that Valkey has counted ahead of time, which one worker then admits by itself, without I/O.

GCRA keeps one number per key, the theoretical arrival time (TAT): the time at which nothing is used any more. Each call
moves it on by the policy's emission interval. A lease of n calls moves it on by n intervals at once, and the worker
holds the stretch of time between `base` and `ceiling` that it was moved by. Each call that the worker admits moves the
base on by one interval, up to the ceiling.

**Never above the limit.** The base is never behind the clock: as time passes, what was leased and not spent lapses at
the rate at which the bucket refills. So what is left in Valkey and in all leases together never exceeds the burst,
however calls, workers and replies interleave. Stretches of one key do not overlap, for each begins where Valkey's TAT
was. Two may only be joined when nobody has asked in between, which the TAT shows.

**Small.** Valkey leases at most a fiftieth of what is left, so nothing at all below fifty, where every call asks. A key
gets a lease only when its calls follow each other within LIFE; the next lease is asked for when half of one is spent,
so a worker holds three hundredths at most. A lease ends after LIFE. What is unspent then joins the next lease, unless
another worker has asked meanwhile: then the bucket refills it, as it does with the leases of a crashed worker.

What does not live here: I/O (limiter.py), Valkey's half (gcra.lua), and the choice of limits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from gateway.limits.gcra import Call, Reply, microseconds
from gateway.limits.policy import Check, Policy, Verdict, combined, whole_seconds

LIFE = 1_000_000  # microseconds for which a lease may be spent
PATIENCE = 250_000  # after which a reply that would have brought a lease counts as lost
BUSY = 4  # calls since the last lease that make it worth asking for the next one ahead of need
FIRST = 8  # a first lease is no larger, and the next ones at most four times the one before
KEEP = 10 * LIFE  # for which a key is remembered that nobody uses
CAPACITY = 65_536


@dataclass(slots=True)
class Lease:
    """A stretch of a key's time, in microseconds of our clock; `top` is its ceiling on Valkey's clock.

    Half of it is spent at `low`. `hidden` is what answers must not promise: what others will have taken by now.
    """

    base: int
    ceiling: int
    top: int
    low: int
    expires: int
    hidden: int

    def unspent(self, now: int) -> int:
        """Return how much of it has neither been spent nor lapsed, whether or not it has expired."""
        return max(self.ceiling - max(self.base, now), 0)

    def spend(self, check: Check, now: int) -> bool:
        """Admit a call, if there is enough for it. Its cost is at least 1."""
        base = (self.base if self.base > now else now) + check.policy.interval * check.cost
        if base > self.ceiling or now >= self.expires:
            return False
        self.base = base
        return True

    def extend(self, span: int, ceiling: int, top: int, expires: int, hidden: int) -> None:
        """Move on to a later ceiling, with so much unspent."""
        self.base, self.ceiling, self.top, self.low = ceiling - span, ceiling, top, ceiling - span // 2
        self.expires, self.hidden = expires, hidden

    def give_back(self, check: Check) -> None:
        """Take an admitted call back, which another limit has refused."""
        self.base -= check.policy.interval * check.cost

    def verdict(self, policy: Policy, now: int) -> Verdict:
        """Return what GCRA says of a call that has just been admitted."""
        interval, tolerance = policy.interval, policy.tolerance
        used = self.base - now if self.base > now else 0
        # What is left in Valkey and what is left here, each in whole calls: no call takes a part of both.
        remaining = (now + tolerance - self.ceiling - self.hidden) // interval
        remaining = max(remaining, 0) + (self.ceiling - self.base) // interval
        wait = used + interval - tolerance
        return Verdict(
            True,
            policy,
            remaining,
            whole_seconds(wait) if wait > 0 else 0,
            whole_seconds(used),
        )


@dataclass(slots=True)
class Key:
    """What a worker knows of one key: its lease, the next lease, and how often calls come."""

    lease: Lease | None = None
    spare: Lease | None = None
    tat: int = 0  # Valkey's, after it answered us last
    told: int = 0  # when that was
    size: int = 0  # calls that it leased last
    used: int = 0  # calls since we asked for a lease
    asked: int = 0  # when that was
    last: int = -KEEP  # when the last call came
    pending: int = 0  # until when we wait for a lease that we asked for

    def spend(self, check: Check, now: int) -> Lease | None:
        """Admit a call from the lease or the spare one, and return which."""
        lease = self.lease
        if lease is None or not lease.spend(check, now):
            if self.spare is None:
                return None
            lease, self.lease, self.spare = self.spare, self.spare, None
            if not lease.spend(check, now):
                return None
        self.used += 1
        self.last = now
        return lease

    def low(self, lease: Lease, now: int) -> bool:
        """Say whether to ask for the next lease now, so that no call has to wait for it."""
        if self.used < BUSY or self.spare is not None or now < self.pending:
            return False
        return lease.base >= lease.low or now >= lease.expires - LIFE // 2

    def want(self, check: Check, now: int) -> int:
        """Return how many calls to lease along with one that comes now; 0 when calls do not come often."""
        often, self.last = now - self.last < LIFE, now
        if not often:
            self.used, self.asked, self.size = 1, now, 0
            return 0
        if now < self.pending or self.spare is not None:
            self.used += 1
            return 0
        return self.next(check, now)

    def next(self, check: Check, now: int) -> int:
        """Return how large the next lease shall be, by the rate at which calls came since we asked for the last."""
        wanted = min(self.used * LIFE // max(now - self.asked, 1) + 1, 4 * self.size + FIRST)
        self.used, self.asked, self.pending = 1, now, now + PATIENCE
        if self.lease is not None:
            wanted -= self.lease.unspent(now) // check.policy.interval
        return max(wanted, 1)

    def take(self, check: Check, grant: int, reset: int, reply: Reply, now: int) -> None:
        """Note Valkey's answer to a call that passed: `reset` is what it counts for the key without the new lease."""
        interval, tolerance = check.policy.interval, check.policy.tolerance
        before = reply.clock + reset - interval * check.cost
        top = reply.clock + reset + grant * interval
        others = max(before - max(self.tat, reply.clock), 0) if now - self.told < 2 * LIFE else 0
        self.tat, self.told = top, now
        if grant:
            self.size, self.pending = grant, 0
        # From the time when we sent: Valkey counted at that time or later, so calls lapse too early, if not exactly.
        ceiling, expires = reply.sent + top - reply.clock, reply.sent + LIFE
        # Others are expected to take as much until we ask again, but nobody is told that nothing is left because of it.
        hidden = now - reply.sent + min(others, max(tolerance - reset, 0) // 2)
        newest = self.spare or self.lease
        if newest is not None and newest.top == before:
            newest.extend(newest.unspent(now) + grant * interval, ceiling, top, expires, hidden)
            return
        if not grant:
            return
        span = grant * interval
        lease = Lease(ceiling - span, ceiling, top, ceiling - span // 2, expires, hidden)
        if newest is None or now >= newest.expires or not newest.unspent(now):
            self.lease, self.spare = lease, None
        else:
            self.lease, self.spare = newest, lease


class Leases:
    """The keys of one worker, of which the least recently used are forgotten. `post` sends what nobody waits for."""

    def __init__(
        self,
        post: Callable[[Call], None],
        *,
        capacity: int = CAPACITY,
        clock: Callable[[], int] = microseconds,
    ) -> None:
        self._post = post
        self._capacity = capacity
        self._clock = clock
        self._keys: OrderedDict[bytes, Key] = OrderedDict()  # that which we asked Valkey about last comes last

    def __len__(self) -> int:
        return len(self._keys)

    def spend(self, checks: Sequence[Check]) -> Verdict | None:
        """Admit a call if the leases of all of its keys cover it. None: Valkey must be asked."""
        now = self._clock()
        verdict: Verdict | None = None
        spent: list[tuple[Lease, Check]] = []
        for check in checks:
            key = self._keys.get(check.key)
            lease = None if key is None else key.spend(check, now)
            if key is None or lease is None:
                give_back(spent)
                return None
            spent.append((lease, check))
            own = lease.verdict(check.policy, now)
            verdict = own if verdict is None else combined(verdict, own)
            if key.low(lease, now):
                self._renew(key, check, now)
        return verdict

    def ask(self, checks: Sequence[Check]) -> tuple[Call, list[tuple[Lease, Check]]]:
        """Spend what leases cover, and return the call that asks Valkey for the rest, with what was spent."""
        now = self._clock()
        wants: list[int] = []
        asked: list[Check] = []
        spent: list[tuple[Lease, Check]] = []
        leasing = False
        for check in checks:
            key = self._key(check, now)
            lease = key.spend(check, now)
            if lease is not None:
                spent.append((lease, check))
            else:
                asked.append(check)
                wants.append(key.want(check, now))
                leasing = leasing or wants[-1] > 0 or key.lease is not None
        if not leasing:
            return Call(asked), spent
        return Call(asked, wants, self._granted), spent

    def verdict(self, spent: Sequence[tuple[Lease, Check]]) -> Verdict:
        """Return the verdict of those checks of a call that leases have covered, at least one."""
        now = self._clock()
        return reduce(combined, [lease.verdict(check.policy, now) for lease, check in spent])

    def _renew(self, key: Key, check: Check, now: int) -> None:
        """Ask for the next lease in the background."""
        self._keys.move_to_end(check.key)
        look = Check(check.principal, check.policy, 0)
        self._post(Call((look,), (key.next(check, now),), self._granted))

    def _granted(self, call: Call, reply: Reply) -> None:
        if min(reply.counts[::2]) < 0:
            return  # a refused call consumes nothing and leases nothing
        now = self._clock()
        for index, check in enumerate(call.checks):
            key = self._keys.get(check.key)
            if key is not None:
                key.take(check, reply.counts[2 * index], reply.counts[2 * index + 1], reply, now)

    def _key(self, check: Check, now: int) -> Key:
        keys = self._keys
        key = keys.get(check.key)
        if key is not None:
            keys.move_to_end(check.key)
            return key
        while keys and (len(keys) >= self._capacity or next(iter(keys.values())).last < now - KEEP):
            keys.popitem(last=False)
        key = keys[check.key] = Key()
        return key


def give_back(spent: Sequence[tuple[Lease, Check]]) -> None:
    """Take back what leases have admitted of a call that something else has refused."""
    for lease, check in spent:
        lease.give_back(check)
