"""Buy one answer from a running development gateway with curl, as the README shows it, and check what was charged.

Usage: buy.py DATA_DIRECTORY. Used by .ci/run; exits non-zero with one line when something is not as promised.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def curl(*arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Run curl and return status, headers (lower-case names) and body."""
    done = subprocess.run(["curl", "-sS", "-i", "-m", "20", *arguments], capture_output=True, check=True)  # noqa: S603, S607
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return int(status.split()[1]), headers, body


def balance(url: str, key: str) -> str:
    """Return the wallet's balance as the API shows it."""
    status, _, body = curl("-H", f"Authorization: Bearer {key}", f"{url}/wallet/balance")
    assert status == 200, f"the balance answered {status}: {body[:200]!r}"
    document: dict[str, Any] = json.loads(body)
    return json.dumps(document, sort_keys=True)


def main() -> None:
    """Look at the store, pay for one call, and see the balance go down."""
    running = json.loads((Path(sys.argv[1]) / "dev.json").read_text(encoding="utf-8"))
    url, demo = running["url"], running["demo"]
    status, _, body = curl(f"{url}/publishers")
    assert status == 200, f"the store answered {status}"
    assert demo["publishers"][0].encode() in body, "the store does not list the demo publisher"
    key = demo["agent_api_key"]
    before = balance(url, key)
    call = demo.get("example") or f"/publishers/{demo['publishers'][0]}/v1/quote"
    status, headers, body = curl("-H", f"Authorization: Bearer {key}", url + call)
    assert status == 200, f"the paid call answered {status}: {body[:300]!r}"
    after = balance(url, key)
    assert after != before, "the paid call cost nothing"
    costs = {name: value for name, value in headers.items() if name.startswith("x-")}
    sys.stdout.write(f"bought {call}: {len(body)} bytes, {costs}\n")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as failure:
        sys.exit(f"buy: {failure}")
