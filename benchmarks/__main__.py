"""`python -m benchmarks`: what a call through the gateway costs, priced and not, beside what it could cost."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import machine
from benchmarks.books import prove
from benchmarks.processes import Placement
from benchmarks.report import Report
from benchmarks.rounds import Case, Generator, Row, measure
from benchmarks.seeding import FREE, PAID
from benchmarks.stack import ROOT, Stack, running
from gateway.devservices import valkey
from gateway.devservices.processes import ServiceError

KINDS = ("bare", "nginx", "unpriced", "prepaid")
SERVERS = ("granian", "uvicorn", "hypercorn")
WARM_SECONDS = 1.0
PLACES = ("--output", "--against")


class Listed(click.ParamType):
    """A comma-separated list; `convert_one` reads an entry."""

    def __init__(self, name: str, allowed: Sequence[str] = ()) -> None:
        self.name = name
        self._allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split and check."""
        if not isinstance(value, str):
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        if self._allowed:
            wrong = [word for word in words if word not in self._allowed]
        else:
            wrong = [word for word in words if not word.isdigit() or int(word) < 1]
        if wrong or not words:
            self.fail(f"{value!r}: use a comma-separated list of {', '.join(self._allowed) or 'whole numbers'}")
        return words if self._allowed else [int(word) for word in words]


@click.command()
@click.option("--quick", is_flag=True, help="One short round of one server: does it work at all?")
@click.option("--connections", type=Listed("numbers"), default="1,16,64", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="Length of a round.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--servers", type=Listed("servers", SERVERS), default="granian,uvicorn,hypercorn", show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Of each gateway and nginx.")
@click.option("--agents", type=Listed("numbers"), default="1,1000", show_default=True, help="Who pay in turn.")
@click.option("--kinds", type=Listed("kinds", KINDS), default=",".join(KINDS), show_default=True, help="Which rows.")
@click.option("--pin", is_flag=True, help="The proxies on one core, everything else on the others.")
@click.option("--generator", type=click.Choice(["auto", "wrk", "builtin"]), default="auto", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks" / "reports")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Another checkout to measure in the same run.",
)
@click.option("--name", default="", help="Of the report's files; default the date and time.")
def main(*, quick: bool, output: Path, name: str, **options: Any) -> None:
    """Measure the bare upstream, nginx and the gateway, with free and durably paid calls, in alternating rounds."""
    signal.signal(signal.SIGTERM, interrupt)
    if quick:
        options |= {"connections": [4], "seconds": min(options["seconds"], 1.0), "rounds": 1}
        options |= {"servers": options["servers"][:1], "agents": [min(agents, 20) for agents in options["agents"]]}
    try:
        report = run(options, name or datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S"))
    except ServiceError as error:
        raise SystemExit(f"benchmarks: {error}") from None
    print(report.table(), report.proof_line(), sep="\n\n")
    print(f"report: {report.write(output).name} in {output}")
    sys.exit(0 if report.valid else 1)


def run(options: dict[str, Any], name: str) -> Report:
    """Start everything, measure, prove the books, and return what was found."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    placement = Placement(pin=options["pin"])
    nginx = shutil.which("nginx") is not None
    most = max(options["agents"])
    with running(
        options["servers"],
        agents=most,
        workers=options["workers"],
        nginx=nginx,
        placement=placement,
        against=options["against"],
    ) as stack:
        generator = Generator(options["generator"], key_files(stack, options["agents"]))
        if generator.name == "builtin":
            print("no wrk: using the built-in generator (Debian: apt-get install wrk)", file=sys.stderr)
        disk = machine.Disk(stack.services.home)
        rows = [
            Row(case)
            for case in cases(stack, options["connections"], options["agents"])
            if case.kind in options["kinds"]
        ]
        _measure_all(stack, generator, rows, disk, options)
        runs = options["rounds"] + 1  # with the warm-up
        cut = sum(row.case.connections for row in rows if row.case.kind == "prepaid") * runs
        proof = asyncio.run(prove(stack, allowance=cut))
        facts = machine.machine_facts(stack.services.home)
        services = {
            "postgres": asyncio.run(machine.database_facts(stack.services.database_url)),
            "valkey": machine.program_version(valkey._binary(), "--version"),
            "nginx": machine.program_version("nginx", "-v") if nginx else None,
        }
        command = shlex.join(["python", "-m", "benchmarks", *without_places(sys.argv[1:])])
        return Report(
            name, started, {**options, "command": command, "against": bool(options["against"])}, facts, services,
            generator.name, stack.complete, disk.facts(), proof, rows,
        )  # fmt: skip


def cases(stack: Stack, connections: Sequence[int], agents: Sequence[int]) -> Iterator[Case]:
    """Yield what is measured, in the order in which the rounds alternate."""
    most = max(agents)
    for number in connections:
        yield Case("bare", "", number, 0, stack.upstream.port, "/bare/x", stack.upstream.pid)
        if stack.nginx is not None:
            yield Case("nginx", "", number, 0, stack.nginx.port, "/bare/x", stack.nginx.pid)
        for server, gateway in stack.gateways.items():
            place = gateway.port, f"/publishers/{FREE}/x", gateway.pid
            yield Case("unpriced", server, number, most, *place)
            for payers in sorted(set(agents), reverse=True):
                place = gateway.port, f"/publishers/{PAID}/x", gateway.pid
                yield Case("prepaid", server, number, payers, *place)


def _measure_all(
    stack: Stack, generator: Generator, rows: Sequence[Row], disk: machine.Disk, options: dict[str, Any]
) -> None:
    others = {"postgres": stack.services.postgres_pid, "valkey": stack.services.valkey_pid}
    seconds = options["seconds"]
    for row in rows:
        generator.load(row.case, min(seconds, WARM_SECONDS))
    for number in range(1, options["rounds"] + 1):
        disk.sample()
        for row in rows:
            row.rounds.append(measure(generator, row.case, seconds, others))
            case, last = row.case, row.rounds[-1]
            print(
                f"round {number}/{options['rounds']}  {case.connections:>4}  {case.name:<34} {last.rate:>8.0f} req/s",
                file=sys.stderr,
            )


def key_files(stack: Stack, agents: Sequence[int]) -> dict[int, Path]:
    """Write the keys of the first agents to a file for each number of agents asked for."""
    files: dict[int, Path] = {}
    for number in agents:
        files[number] = stack.directory / f"keys-{number}"
        files[number].write_text("".join(f"{agent.key}\n" for agent in stack.world.agents[:number]), encoding="utf-8")
    return files


def without_places(arguments: Sequence[str]) -> list[str]:
    """Return the arguments less the values that name places on this machine."""
    kept: list[str] = []
    hidden = False
    for word in arguments:
        name, equals, _ = word.partition("=")
        kept.append(f"{name}=..." if equals and name in PLACES else "..." if hidden else word)
        hidden = word in PLACES
    return kept


def interrupt(_number: int, _frame: object) -> None:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
