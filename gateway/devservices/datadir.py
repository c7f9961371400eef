"""The development data directory: one holder at a time, and the dev.json that scripts and the CLI read.

dev.json is written when the gateway is ready and stays after it has stopped (its demo credentials remain valid).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import cast

from gateway.devservices.processes import ServiceError, write_private

DEV_JSON = "dev.json"
LOCK = "lock"


def prepare(data: Path) -> Path:
    """Create the directory, for us alone, and return its absolute path. Raises ServiceError when it cannot be ours."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole = data.resolve()
    except OSError as error:
        raise ServiceError(f"TOLLWAY_DATA={data}: cannot be created ({error.strerror})") from None
    if not os.access(whole, os.R_OK | os.W_OK | os.X_OK):
        raise ServiceError(f"TOLLWAY_DATA={data}: not writable for this user; choose another directory")
    _require_own(data, whole / LOCK)
    return whole


def _require_own(data: Path, lock: Path) -> None:
    """Raise ServiceError when somebody else began here: root would spoil what only the owner can start again."""
    if not lock.exists() or lock.stat().st_uid == os.geteuid():
        return
    owner = lock.stat().st_uid
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(owner).pw_name
    raise ServiceError(f"TOLLWAY_DATA={data}: belongs to user {owner}; run as that user, or choose another directory")


@contextlib.contextmanager
def held(data: Path) -> Generator[None]:
    """Hold the directory; the system releases it however we end. Raises ServiceError naming the present holder."""
    handle = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise ServiceError(f"{data} is in use by process {pid}: stop it, or set TOLLWAY_DATA") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def write_dev_json(data: Path, document: Mapping[str, object]) -> None:
    """Publish what runs, atomically and for us alone (it holds passwords and keys)."""
    write_private(data / DEV_JSON, json.dumps(document, indent=2) + "\n")


def read_dev_json(data: Path) -> dict[str, object]:
    """Return what the last start published; empty when there was none."""
    try:
        document: object = json.loads((data / DEV_JSON).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ServiceError(f"{data / DEV_JSON}: cannot be read: {error}") from None
    return cast(dict[str, object], document) if isinstance(document, dict) else {}
