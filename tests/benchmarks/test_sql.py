"""The benchmark of sold queries runs, counts round trips and keeps the books; how fast anything is, no test asserts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_run_measures_both_ways_and_proves_the_books() -> None:
    command = [sys.executable, "-m", "benchmarks.sql", "--quick", "--connections", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^ +2  \D+(?: +\d+\.\d\d){7} +\d+$", done.stdout, re.M)) == 3, done.stdout
    counts = re.search(
        r"ledger ([\d.]+), publisher's database ([\d.]+), Valkey ([\d.]+); .* ([\d.]+)$", done.stdout, re.M
    )
    assert counts is not None, done.stdout
    ledger, database, valkey, flushes = map(float, counts.groups())
    assert all(0.9 <= count <= 6 for count in (ledger, database, flushes)), done.stdout
    assert valkey <= 1, done.stdout  # limits are leased: most calls ask Valkey nothing
    assert "the books balance" in done.stdout
