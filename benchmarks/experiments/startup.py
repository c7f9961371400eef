"""How long it takes from the command to the first answer: `tollway dev` with all its services, and `tollway serve`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.experiments.finding import Finding, Setting
from benchmarks.plain_http import free_port, get
from benchmarks.stack import ROOT, gateway_environment, plain_environment
from gateway.devservices import postgres

STARTS = 3
PATIENCE = 60.0


def run(setting: Setting) -> Finding:
    """Start each a few times on warm data."""
    starts = 1 if setting.quick else STARTS
    data = Path(tempfile.mkdtemp(prefix="tw-start-", dir="/tmp"))
    try:
        cold, *warm = [_dev(data) for _ in range(starts + 1)]
    finally:
        home = postgres.find_place(data).home
        for place in {home, data}:
            shutil.rmtree(place, ignore_errors=True)
    serve = [_serve(setting) for _ in range(starts)]
    document: dict[str, Any] = {"dev_first": round(cold, 3), "dev": _three(warm), "serve": _three(serve)}
    text = (
        f"`tollway dev` on a warm data directory (PostgreSQL, Valkey, demo upstreams, gateway) is ready after"
        f" {document['dev']['median']:.2f} s, the first time after {cold:.1f} s; `tollway serve` beside running stores"
        f" after {document['serve']['median']:.2f} s. Medians of {starts}."
    )
    return Finding("startup", "Start to ready", document, text)


def _three(values: list[float]) -> dict[str, float]:
    return {"min": round(min(values), 3), "median": round(median(values), 3), "max": round(max(values), 3)}


def _dev(data: Path) -> float:
    port = free_port()
    environment = {**plain_environment(), "TOLLWAY_DATA": str(data), "TOLLWAY_PORT": str(port)}
    return _timed([sys.executable, "-m", "gateway.cli.main", "dev"], environment, port)


def _serve(setting: Setting) -> float:
    port = free_port()
    stack = setting.stack
    environment = gateway_environment(stack.services, complete=stack.complete, workers=1)
    environment |= {"TOLLWAY_SERVER": setting.server, "TOLLWAY_PORT": str(port)}
    return _timed([sys.executable, "-m", "gateway.cli.main", "serve"], environment, port)


def _timed(command: list[str], environment: dict[str, str], port: int) -> float:
    """Return the seconds from the command to the first answer of /health/ready, and stop it again."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            while not _ready(port):
                if process.poll() is not None or time.monotonic() - began > PATIENCE:
                    said.seek(0)
                    raise RuntimeError(f"{command[-1]} did not become ready: {said.read()[-500:]!r}")
                time.sleep(0.005)
            return time.monotonic() - began
        finally:
            process.send_signal(signal.SIGTERM)
            _wait(process, lambda: os.killpg(process.pid, signal.SIGKILL))


def _wait(process: subprocess.Popen[bytes], give_up: Callable[[], None]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        give_up()
        process.wait(10)


def _ready(port: int) -> bool:
    try:
        return get(port, "/health/ready")[0] == 200
    except OSError:
        return False
