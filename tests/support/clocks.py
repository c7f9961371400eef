"""A clock that a test sets while a process runs: libfaketime, loaded into it. Tests of clocks are skipped without it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LIBRARIES = (
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    *Path("/usr/local/lib/faketime").glob("libfaketimeMT.so.1"),
)
MISSING = "there is no libfaketime here (Debian: faketime)"


class SettableClock:
    """The wall clock of the processes that get its `environment`; their monotonic clock runs as ever."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tw-clock-"))
        self._folder.chmod(0o755)
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """Return what loads it."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / "offset"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set it so many seconds before (negative) or after the true time."""
        fresh = self._folder / "fresh"
        fresh.write_text(f"{seconds:+d}")
        fresh.chmod(0o644)
        os.replace(fresh, self._folder / "offset")
