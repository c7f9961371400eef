"""What an open connection costs in memory: streams that say one word and then nothing, and kept connections.

A gateway of its own is used, whose bound on connections to one upstream is raised. Memory is PSS of its process tree.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import Any

from benchmarks.experiments.finding import Finding, Setting
from benchmarks.plain_http import END, HOST
from benchmarks.processes import memory_bytes
from benchmarks.seeding import PAID
from benchmarks.stack import RAISED_LIMITS, Doors, Running

STREAMS = 10_000
AT_ONCE = 100
RESERVE = 1_000  # descriptors for everything else


def room() -> int:
    """Raise the bound on open files where we may, and return how many streams it allows: two sockets each, here one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * STREAMS
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, wanted), max(hard, wanted)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return (soft - RESERVE) // 2


async def _hold(gateway: Running, path: str, key: str, number: int, complete: bytes) -> tuple[int, int]:
    """Open so many calls and keep them. Returns the gateway's memory before and with them."""
    gate = asyncio.Semaphore(AT_ONCE)
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()

    async def opened() -> asyncio.StreamWriter:
        async with gate:
            reader, writer = await asyncio.open_connection(HOST, gateway.port)
            writer.write(request)
            head = await reader.readuntil(END)
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readuntil(complete)
            return writer

    warm = [await opened() for _ in range(20)]
    await asyncio.sleep(1.0)
    before = memory_bytes([gateway.pid])
    writers = await asyncio.gather(*(opened() for _ in range(number)))
    await asyncio.sleep(1.0)
    held = memory_bytes([gateway.pid])
    for writer in (*warm, *writers):
        writer.transport.abort()
    return before, held


def run(setting: Setting) -> Finding:
    """Open many streams, then many kept connections, each through a fresh gateway."""
    number = min(STREAMS, room())
    number = min(number, 300) if setting.quick else number
    limits = {f"TOLLWAY_PROXY_{name}": str(2 * STREAMS) for name in (
        "CONNECTIONS_PER_UPSTREAM", "CONNECTIONS_PER_UPSTREAM_MAX"
    )} | RAISED_LIMITS  # fmt: skip
    stack = setting.stack
    document: dict[str, Any] = {"number": number}
    for name, path, complete in (("stream", "idle", b"\n\n\r\n"), ("kept", "x", b'"}')):
        with contextlib.ExitStack() as children:
            doors = Doors(children, stack.directory, stack.services, stack.upstream, stack.complete)
            gateway = doors.gateway(setting.server, 1, stack.world, **limits)
            key = stack.world.agents[0].key
            before, held = asyncio.run(_hold(gateway, f"/publishers/{PAID}/{path}", key, number, complete))
        document[name] = {"before": before, "held": held, "bytes_each": round((held - before) / number)}
    stream, kept = document["stream"]["bytes_each"], document["kept"]["bytes_each"]
    text = (
        f"{number:,} open paid event streams take {stream / 1024:.1f} KiB each of the gateway's memory (PSS;"
        f" {document['stream']['before'] / 2**20:.0f} MiB before, {document['stream']['held'] / 2**20:.0f} with them),"
        f" as many kept connections after a call {kept / 1024:.1f} KiB. The kernel's socket buffers are not in it."
    )
    return Finding("idle", "Memory per connection", document, text)
