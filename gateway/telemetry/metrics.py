"""Metrics for Prometheus: what is counted, under which labels, and how the workers' numbers come together.

Every label value is bounded: publishers that do not exist are "unknown", and past 1,000 distinct ones "other", so that
a scan of invented slugs costs one series and not the monitoring system. The hot path looks children up in dicts of its
own and adds to plain integers (tally.py). What does not live here: who calls these methods, alert rules (config/).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
)

from gateway.telemetry.multiprocess import VARIABLE
from gateway.telemetry.tally import Count, Sheet, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_VALUES = 1_000
UNKNOWN, OTHER = "unknown", "other"

SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1_000.0)

LimitOutcome = Literal["allowed", "refused", "unavailable"]


class Bounded:
    """Lets at most `most` distinct values become label values."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, value: str | None) -> str:
        """Return the label for a value: itself while there is room, None as "unknown", the rest as "other"."""
        if value is None:
            return UNKNOWN
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class _Counters:
    """A counter or gauge with its children by label values."""

    def __init__(self, metric: Counter | Gauge, sheet: Sheet) -> None:
        self._metric, self._sheet = metric, sheet
        self._children: dict[tuple[str, ...], Count] = {}

    def add(self, amount: int, *labels: str) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Count(self._metric.labels(*labels), self._sheet)
        child.add(amount)


class _Gauges:
    """A gauge that is set, with its children by label values."""

    def __init__(self, metric: Gauge) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Gauge] = {}

    def set(self, value: float, *labels: str) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        child.set(value)


class Metrics:
    """All of Tollway's metrics. One instance per process: in multi-process mode two would write one file."""

    def __init__(self) -> None:
        self.multiprocess = VARIABLE in os.environ
        if self.multiprocess is (values.ValueClass is values.MutexValue):
            raise RuntimeError(
                f"{VARIABLE} changed after prometheus_client was imported; set it before the workers start"
            )
        # The library would add a _created series to every other one: twice the size for a date nobody plots.
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self._sheet = Sheet()
        self._publishers, self._assets, self._pools, self._policies = Bounded(), Bounded(100), Bounded(), Bounded(100)
        self._declare_calls()
        self._declare_queries()
        self._declare_parts()
        self._declare_books()
        self._build_info()

    def _declare_calls(self) -> None:
        counter, gauge = self._counter, self._sum_gauge
        self._requests = counter("requests_total", "Publisher calls.", "publisher", "status_class", "outcome")
        self._revenue = counter(
            "revenue_atomic_total",
            "Charged, in atomic units of the asset (approximate above 2^53).",
            "publisher",
            "asset",
        )
        self._turned_away = counter("turned_away_total", "Calls refused because the gateway had too many.", "reason")
        self._upstream_errors = counter("upstream_errors_total", "Failed upstream calls.", "publisher", "kind")
        self._breaker_changes = counter("breaker_changes_total", "Breakers that entered a state.", "publisher", "state")
        self._breakers = _Gauges(gauge("breakers", "Breakers in a state, by workers.", "publisher", "state"))
        self.left_alone: set[str] = set()  # publishers whose server this worker does not call now
        self._verdicts = counter("limit_verdicts_total", "Rate limit verdicts.", "policy", "verdict")
        self._exchanges = Count(gauge("open_exchanges", "Charged calls whose end is not recorded yet."), self._sheet)
        self._holds = Count(gauge("open_holds", "Holds not yet captured or released."), self._sheet)
        self._stages = self._histogram("stage_seconds", "Duration of each stage of a call.", SECONDS, "stage")
        self._stage: dict[str, Spread] = {}

    def _declare_queries(self) -> None:
        counter = self._counter
        self._queries = counter("queries_total", "Queries that ran, by what ended them.", "publisher", "end")
        self._query_rows = counter("query_rows_total", "Rows of queries' answers.", "publisher")
        self._query_bytes = counter("query_bytes_total", "Bytes of the rows of queries' answers.", "publisher")
        self._query_refusals = counter("query_refusals_total", "Queries that were refused by their text.", "code")
        self._query_errors = self._histogram(
            "query_estimate_error", "How many times an estimate was too low or too high.", FACTORS, "side"
        )
        self._query_error = {
            side: Spread(self._query_errors.labels(side), FACTORS, self._sheet) for side in ("low", "high")
        }

    def _declare_books(self) -> None:
        """Declare what the jobs that look after the books say."""
        self._books = self._last_said("books_balance", "1 where the last proofs found the books sound, 0 where not.")
        self._unknown = self._last_said(
            "exchanges_unknown", "Payments and holds whose end has not been known for long."
        )
        self._billing_lag = self._last_said("billing_lag_seconds", "How far behind a part of billing is.", "of")
        self._failed_later = self._last_said(
            "deposits_failed_later", "Deposits of 7 days whose payment failed after it was credited."
        )
        self._reversed = self._last_said(
            "invoices_reversed", "Invoices of which a payment failed or was disputed in 7 days, after it was booked."
        )
        self._suspense = self._last_said("suspense_atomic", "Money that is nobody's yet, by asset.", "network", "asset")

    def _declare_parts(self) -> None:
        gauge = self._sum_gauge
        self._relayer_leading = _Gauges(gauge("relayer_leading", "1 where the network's relayer runs.", "network"))
        self._relayer_balance = _Gauges(gauge("relayer_balance_wei", "Gas money of the relayer's key.", "network"))
        self._relayer_waits = _Gauges(gauge("relayer_waits", "1 while payments cannot be sent.", "network"))
        self._payments = self._counter(
            "x402_payments_total", "Payments of calls that ended.", "network", "policy", "outcome"
        )
        self._declined = self._counter("x402_declined_total", "Payments that were declined.", "reason")
        self._reasons = Bounded(100)
        self._chain_payments = _Gauges(gauge("chain_payments", "Open payments by state.", "network", "state"))
        self._facilitated = self._counter(
            "facilitator_settlements_total", "Settlements for other sellers.", "network", "outcome"
        )
        self._facilitator_gas = self._counter(
            "facilitator_gas_wei_total", "Gas money that settling for others has cost.", "network"
        )
        self._purchases = self._counter(
            "purchases_total", "Payments to publishers' servers, by what their answers said.", "network", "said"
        )
        self._not_bought = self._counter("purchases_declined_total", "Calls that were not bought.", "reason")
        self._wallet = _Gauges(
            gauge("buying_wallet_atomic", "In the buying wallet by the books and the chain.", "network", "asset", "of")
        )
        self._open_purchases = _Gauges(gauge("purchases_open", "Purchases whose end is not known.", "network"))
        self._oldest_purchase = _Gauges(gauge("purchases_oldest_open_seconds", "Age of the oldest of them.", "network"))
        self._payouts = _Gauges(gauge("payouts", "Payouts that have not ended, by state.", "network", "state"))
        self._oldest_payout = _Gauges(gauge("payouts_oldest_seconds", "Age of the oldest open payout.", "network"))
        self._treasury = self._last_said("treasury_atomic", "In a treasury, or to leave it.", "network", "asset", "of")
        self._pool = _Gauges(self._sum_gauge("pool", "Connections of a pool by state.", "pool", "state"))
        self._cache_events = self._counter("cache_events_total", "Cache hits, misses and so on.", "cache", "event")
        self._cache_entries = _Gauges(self._sum_gauge("cache_entries", "Entries in a cache, all workers.", "cache"))
        self._partitions_ahead = self._last_said(
            "ledger_partitions_ahead_seconds", "For how long the ledger has partitions for new calls."
        )
        self._lines_lost = Count(
            Counter("tollway_log_lines_lost_total", "Log lines that nobody took.", registry=self._registry), self._sheet
        )
        self._clock_steps = self._counter("clock_steps_total", "Clocks that were set.", "of", "direction")
        for of in ("host", "database"):  # from 0 on: Prometheus takes no first value for a rise
            for direction in ("forward", "back"):
                self._clock_steps.add(0, of, direction)
        self._clock_difference = self._last_said(
            "clock_difference_seconds", "How far this host's clock is ahead of the database's."
        )
        sizes = self._histogram("ledger_batch_size", "Charges in one commit.", BATCHES)
        seconds = self._histogram("ledger_batch_seconds", "Duration of one commit.", SECONDS)
        self._batch_size, self._batch_seconds = (
            Spread(sizes, BATCHES, self._sheet),
            Spread(seconds, SECONDS, self._sheet),
        )

    def observe_call(
        self,
        publisher: str | None,
        status: int,
        outcome: str,
        asset: str | None = None,
        amount: int = 0,
        stages: Iterable[tuple[str, float]] = (),
    ) -> None:
        """Count one finished publisher call.

        `publisher` is None unless the slug exists. `status` 0 means that nothing was answered. `outcome` and the stage
        names are words of our code, never of the caller. `amount` is what was charged, in atomic units of `asset`.
        """
        label = self._publishers.label(publisher)
        self._requests.add(1, label, _STATUS_CLASSES.get(status // 100, "none"), outcome)
        if amount:
            self._revenue.add(amount, label, self._assets.label(asset))
        for name, seconds in stages:
            self.observe_stage(name, seconds)

    def observe_stage(self, name: str, seconds: float) -> None:
        """Add one stage's duration."""
        spread = self._stage.get(name)
        if spread is None:
            spread = self._stage[name] = Spread(self._stages.labels(name), SECONDS, self._sheet)
        spread.observe(seconds)

    def upstream_error(self, publisher: str | None, kind: str) -> None:
        """Count a failed upstream call; `kind` is a word of our code (unreachable, timeout, invalid...)."""
        self._upstream_errors.add(1, self._publishers.label(publisher), kind)

    def query_refused(self, code: str) -> None:
        """Count a query that is not sold; `code` is a word of our code."""
        self._query_refusals.add(1, code)

    def query_ended(self, publisher: str, end: str, rows: int, size: int) -> None:
        """Count a query that ran. `end` is "whole", what cut it off, or "failed"; `size` is bytes of rows."""
        label = self._publishers.label(publisher)
        self._queries.add(1, label, end)
        self._query_rows.add(rows, label)
        self._query_bytes.add(size, label)

    def query_estimated(self, estimate: int, actual: int) -> None:
        """Add how good an estimate was; both are metered rows."""
        estimate, actual = max(1, estimate), max(1, actual)
        side = "low" if estimate < actual else "high"
        self._query_error[side].observe(max(estimate, actual) / min(estimate, actual))

    def breaker_changed(self, publisher: str, state: Literal["closed", "open", "half_open"]) -> None:
        """Note the new state of this worker's circuit breaker for a publisher's server."""
        label = self._publishers.label(publisher)
        (self.left_alone.discard if state == "closed" else self.left_alone.add)(publisher)
        self._breaker_changes.add(1, label, state)
        for other in ("open", "half_open"):  # a breaker that was never open has no series
            self._breakers.set(other == state, label, other)

    def turned_away(self, reason: Literal["wait", "calls", "publisher"]) -> None:
        """Count a call that admission control refused (load shedding)."""
        self._turned_away.add(1, reason)

    def limit_verdict(self, policy: str, verdict: LimitOutcome, times: int = 1) -> None:
        """Count rate limit verdicts; `unavailable` are those that were given without Valkey."""
        self._verdicts.add(times, self._policies.label(policy), verdict)

    def open_exchanges(self, change: int) -> None:
        """Add to (or take from) this worker's charged calls whose end is not recorded yet."""
        self._exchanges.add(change)

    def open_holds(self, change: int) -> None:
        """Add to (or take from) the holds that this worker has open."""
        self._holds.add(change)

    def set_pool(self, pool: str, state: str, connections: int) -> None:
        """Set how many of this worker's connections of a pool are in a state."""
        self._pool.set(connections, self._pools.label(pool), state)

    def set_relayer(
        self, network: str, *, leading: bool, balance: int | None, waits: bool, payments: Mapping[str, int]
    ) -> None:
        """Set what this worker's relayer of a network sees; one that does not lead sees nothing.

        `balance` is wei, None where somebody else pays for gas.
        """
        self._relayer_leading.set(leading, network)
        if balance is not None:
            self._relayer_balance.set(balance, network)
        self._relayer_waits.set(waits, network)
        for state in OPEN_PAYMENT_STATES:
            self._chain_payments.set(payments.get(state, 0), network, state)

    def facilitated(self, network: str, outcome: Literal["settled", "refused", "pending"]) -> None:
        """Count a settlement that another seller asked for; `network` is one of ours, or "" when it named none."""
        self._facilitated.add(1, network, outcome)

    def facilitator_spent(self, network: str, wei: int) -> None:
        """Add gas money that a settlement for another seller has cost (approximate above 2^53)."""
        self._facilitator_gas.add(wei, network)

    def payment_ended(self, network: str, policy: str, outcome: str) -> None:
        """Count a payment on a chain whose call has ended; `policy` and `outcome` are words of our code."""
        self._payments.add(1, network, policy, outcome)

    def payment_declined(self, reason: str) -> None:
        """Count a payment that was declined; `reason` is a code of the protocol."""
        self._declined.add(1, self._reasons.label(reason))

    def purchase_ended(self, network: str, said: Literal["paid", "unpaid", "unknown"]) -> None:
        """Count a call that was bought from a publisher's server; `said` is what its answer said of the payment."""
        self._purchases.add(1, network, said)

    def purchase_declined(self, reason: str) -> None:
        """Count a call that was not bought; `reason` is a word of our code."""
        self._not_bought.add(1, reason)

    def set_buying_wallet(self, network: str, asset: str, of: Literal["books", "chain"], units: int) -> None:
        """Set what is in the buying wallet of an asset, in atomic units (approximate above 2^53)."""
        self._wallet.set(units, network, self._assets.label(asset), of)

    def set_open_purchases(self, network: str, number: int, oldest: int) -> None:
        """Set how many purchases of a network have not ended, and for how many seconds the oldest."""
        self._open_purchases.set(number, network)
        self._oldest_purchase.set(oldest, network)

    def set_payouts(self, network: str, numbers: Mapping[str, int], oldest: int) -> None:
        """Set how many payouts of a network have not ended, by state, and for how many seconds the oldest.

        `oldest` is of those that wait for the gateway or its chain, and not for an approval or their day.
        """
        for state in OPEN_PAYOUT_STATES:
            self._payouts.set(numbers.get(state, 0), network, state)
        self._oldest_payout.set(oldest, network)

    def set_treasury(self, network: str, asset: str, of: str, units: int) -> None:
        """Set what is in a treasury of an asset, in atomic units; `of` is a word of our code."""
        self._treasury.labels(network, self._assets.label(asset), of).set(units)

    def set_books(self, sound: bool, unknown: int) -> None:
        """Set whether the books balance, and how many exchanges are unknown."""
        self._books.set(int(sound))
        self._unknown.set(unknown)

    def set_billing_lag(self, of: str, seconds: int) -> None:
        """Set how far behind a part of billing is; `of` is a word of our code."""
        self._billing_lag.labels(of).set(seconds)

    def set_suspense(self, network: str, asset: str, units: int) -> None:
        """Set what stands in suspense of an asset; below zero: lost."""
        self._suspense.labels(network, self._assets.label(asset)).set(units)

    def set_failed_later(self, deposits: int, invoices: int) -> None:
        """Set of how many deposits and invoices a payment was taken back lately, after it was booked."""
        self._failed_later.set(deposits)
        self._reversed.set(invoices)

    def cache_event(self, cache: str, event: str, times: int = 1) -> None:
        """Count hits, misses, evictions... of a cache; both are words of our code."""
        self._cache_events.add(times, cache, event)

    def set_cache_entries(self, cache: str, entries: int) -> None:
        """Set how many entries this worker's cache holds."""
        self._cache_entries.set(entries, cache)

    def ledger_batch(self, size: int, seconds: float) -> None:
        """Add one group commit."""
        self._batch_size.observe(size)
        self._batch_seconds.observe(seconds)

    def set_partitions_ahead(self, seconds: int) -> None:
        """Set for how many seconds the ledger has partitions for new calls; below 0 there is none for those of now."""
        self._partitions_ahead.set(seconds)

    def log_lines_lost(self, number: int) -> None:
        """Count log lines that could not be written."""
        self._lines_lost.add(number)

    def clock_stepped(self, of: str, direction: str) -> None:
        """Count a clock that was set: of the `host` or the `database`, `forward` or `back`."""
        self._clock_steps.add(1, of, direction)

    def set_clock_difference(self, ahead: timedelta | None) -> None:
        """Set how far this host's clock is ahead of the database's, where that is known."""
        if ahead is not None:
            self._clock_difference.set(ahead.total_seconds())

    def flush(self) -> None:
        """Publish what was counted in the last quarter second. Call it when the worker ends."""
        self._sheet.flush()

    def render(self) -> bytes:
        """Return the text exposition, the sum of all workers. Other workers' numbers are a quarter second old at most.

        Reads every worker's files in multi-process mode (milliseconds): not for the hot path.
        """
        self.flush()
        if not self.multiprocess:
            return generate_latest(self._registry)
        _forget_dead(Path(os.environ[VARIABLE]))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)

    def _last_said(self, name: str, text: str, *labels: str) -> Gauge:
        """Declare a gauge of which the worker that looked last says it for all."""
        return Gauge(f"tollway_{name}", text, labels, registry=self._registry, multiprocess_mode="livemostrecent")

    def _counter(self, name: str, text: str, *labels: str) -> _Counters:
        return _Counters(Counter(f"tollway_{name}", text, labels, registry=self._registry), self._sheet)

    def _sum_gauge(self, name: str, text: str, *labels: str) -> Gauge:
        # "live": a worker that died has no open exchanges and no connections any more.
        return Gauge(f"tollway_{name}", text, labels, registry=self._registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"tollway_{name}", text, labels, registry=self._registry, buckets=bounds)

    def _build_info(self) -> None:
        # prometheus_client's Info does not exist in multi-process mode.
        info = Gauge(
            "tollway_build_info", "Always 1.", ("version", "python"), registry=self._registry, multiprocess_mode="max"
        )
        info.labels(_own_version(), platform.python_version()).set(1)


def mark_dead(worker: int) -> None:
    """Forget the gauges of a worker (its pid) that has ended; its counters stay. No-op in single-process mode."""
    if VARIABLE in os.environ:
        mark_process_dead(worker)


OPEN_PAYMENT_STATES = ("reserved", "pending", "broadcast", "unknown")
OPEN_PAYOUT_STATES = ("queued", "approval", "delayed", "short", "processing")
_STATUS_CLASSES = {number: f"{number}xx" for number in range(1, 6)}


def _forget_dead(directory: Path) -> None:
    """Mark workers dead that nobody marked: after a SIGKILL their open exchanges would count for ever."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _alive(int(pid)):
            mark_process_dead(int(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _own_version() -> str:
    try:
        return version("tollway")
    except PackageNotFoundError:
        return "unknown"
