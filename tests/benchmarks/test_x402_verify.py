"""The verification benchmark runs and measures payments that are taken; how fast anything is, no test asserts."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.x402_verify import main


def test_every_kind_of_payment_is_measured_beside_the_official_sdk() -> None:
    done = CliRunner().invoke(main, ["--rounds", "1", "--calls", "20"])
    assert done.exit_code == 0, done.output
    rows = done.output.splitlines()[1:]
    assert [row[:24].strip() for row in rows] == [
        "v2 exact", "v1 exact", "v2 upto (Permit2)", "v2 forged", "v2 too little", "official SDK, v2 exact",
    ]  # fmt: skip
    assert all(float(figure) > 0 for row in rows for figure in row[24:].split())


def test_a_bound_that_is_exceeded_ends_the_run_with_an_error() -> None:
    done = CliRunner().invoke(main, ["--rounds", "1", "--calls", "5", "--most", "0.001"])
    assert done.exit_code == 1
    assert "more than 0" in done.output
