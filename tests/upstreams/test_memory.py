"""Bodies of any size in bounded memory, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCENARIO = """
import asyncio, resource, sys
from tests_wire import line, pieces, everything, OK

SIZE, PIECE = 200_000_000, b"x" * 40_000


async def download(peer):
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
    chunk = b"%x\\r\\n%b\\r\\n" % (len(PIECE), PIECE)
    for _ in range(SIZE // len(PIECE)):
        await peer.say(chunk)
    await peer.say(b"0\\r\\n\\r\\n")


async def upload(peer):
    await peer.reader.readuntil(b"\\r\\n\\r\\n")
    left = SIZE
    while left:
        left -= len(await peer.reader.read(65_536))
    await peer.say(OK)


async def body():
    for _ in range(SIZE // len(PIECE)):
        yield PIECE


async def main(way):
    async with line(download if way == "down" else upload) as up:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = 0
        if way == "down":
            response = await up.send()
            while piece := await response.read():
                total += len(piece)
                if total < 4_000_000:
                    await asyncio.sleep(0.01)  # a slow reader at first: the queue must not absorb the rest
        else:
            headers = [(b"Content-Length", b"%d" % SIZE)]
            assert await everything(await up.send(b"POST", headers=headers, body=body())) == b"ok"
            total = SIZE
        assert total == SIZE, total
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("way", ["down", "up"])
def test_200_megabytes_grow_the_process_by_less_than_16(way):
    script = SCENARIO.replace("tests_wire", "tests.upstreams.wire")
    done = subprocess.run([sys.executable, "-c", script, way], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16_000, "kilobytes of growth"
