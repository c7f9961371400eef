"""Lines are one per event, carry the request id, and hold no secret: in message, arguments, extras or exceptions."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.ids import uuid7
from gateway.settings import LoggingSettings
from gateway.telemetry.logging import of, setup

KEY = "seren_0123456789abcdef_" + "S3cr" * 10 + "abc"
log = logging.getLogger("gateway.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Collect what is logged, and put pytest's own handlers back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def only_line(stream: io.StringIO) -> dict[str, object]:
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return json.loads(text)


def test_a_json_line_has_the_event_and_its_extras(stream: io.StringIO) -> None:
    setup(LoggingSettings(), stream)
    log.warning("batch of %d took %s", 3, "long", extra={"batch": 3, "wallet": "w-1"})
    line = only_line(stream)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "gateway.test",
        "message": "batch of 3 took long",
        "batch": 3,
        "wallet": "w-1",
    }


@pytest.mark.parametrize("kind", ["json", "text"])
def test_a_line_that_belongs_to_a_request_names_it(stream: io.StringIO, kind: str) -> None:
    setup(LoggingSettings.model_validate({"format": kind}), stream)
    identity = uuid7()
    log.info("inside", extra=of(identity))
    log.info("outside")
    inside, outside = stream.getvalue().splitlines()
    assert (f'"request_id":"{identity}"' if kind == "json" else f"request_id={identity}") in inside
    assert "request_id" not in outside


@pytest.mark.parametrize("kind", ["json", "text"])
def test_secrets_are_masked_in_message_arguments_extras_and_exceptions(stream: io.StringIO, kind: str) -> None:
    setup(LoggingSettings.model_validate({"format": kind}), stream)
    log.info("key " + KEY)
    log.info("key %s", KEY)
    log.info("headers %r", {b"authorization": b"Bearer S3cr"})
    log.info("%(url)s", {"url": "redis://:S3cr@host/0"})
    log.info("seen", extra={"header": {"X-PAYMENT": "S3cr"}})
    log.info(f"wrong format %d {KEY}", "text")
    try:
        raise ValueError(f"Authorization: Bearer {KEY}")
    except ValueError:
        log.exception("failed", stack_info=True)
    text = stream.getvalue()
    assert "S3cr" not in text
    assert text.count("***") >= 7
    assert "ValueError" in text


def test_a_caller_cannot_forge_a_text_line(stream: io.StringIO) -> None:
    setup(LoggingSettings(format="text"), stream)
    log.info("path %s", "/a\r\n2026-01-01 INFO forged\x1b[2J\u2028x")
    assert stream.getvalue().count("\n") == 1
    assert "\\r\\n2026" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("kind", ["json", "text"])
def test_no_argument_makes_logging_fail(stream: io.StringIO, kind: str) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    setup(LoggingSettings.model_validate({"format": kind}), stream)
    log.info("%s", Broken())
    log.info("bytes %s", "\udcff")
    log.info("wei", extra={"wei": 10**30, "level": "forged", "raw": b"x"})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert kind == "text" or json.loads(lines[2])["level"] == "info"
    assert "1" + "0" * 30 in lines[2]
    stream.getvalue().encode()


def test_the_level_and_one_handler_hold_after_repeated_setup(stream: io.StringIO) -> None:
    server = logging.getLogger("uvicorn.error")
    server.addHandler(logging.NullHandler())
    server.propagate = server.disabled = False
    server.setLevel(logging.NOTSET)  # a server that a test before this one ran in this process may have chosen another
    setup(LoggingSettings(), io.StringIO())
    setup(LoggingSettings(level="warning"), stream)
    log.info("quiet")
    server.warning("once")
    assert only_line(stream)["message"] == "once"
