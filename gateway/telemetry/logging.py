"""Logs on standard error: one line per event, JSON or text, without secrets.

Modules log through `logging.getLogger(__name__)` as usual; this file sets up where that goes. A line that belongs to a
request says so by `extra=of(request_id)`: no context variable does, because tasks that outlive the request they were
started in (the ledger's batches, connections) would go on to name it. What does not live here:
what counts as a secret (redact.py), metrics. It prevents a credential in a log file (a message, its arguments, an
exception's text) and a caller who writes log lines of his own by sending line breaks.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import orjson

from gateway.settings import LoggingSettings
from gateway.telemetry.background import BackgroundHandler
from gateway.telemetry.redact import redact

# What every record has; whatever else is on it came through `extra=` and belongs in the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Servers that may run the application bring handlers of their own, past which a line would go out as it is.
_SERVERS = (
    "_granian",
    "granian.access",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "hypercorn.error",
    "hypercorn.access",
)
# They log whole URLs, and those of nodes and webhooks may hold keys; the last one ids of payments, with every request.
_TALKATIVE = ("httpx", "httpcore", "stripe")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class RedactingFilter(logging.Filter):
    """Masks secrets in a record before any formatter sees it: message, arguments and extra fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's texts by masked ones. Never drops a record."""
        record.msg, record.args = redact(_message(record)), None
        for name, value in vars(record).items():
            if name not in _STANDARD and not isinstance(value, bool | int | float | None):
                setattr(record, name, redact(str(value)))
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line break."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (trace := _trace(self, record)) is not None:
            line["exception"] = trace
        line = {**_extras(record), **line}  # an extra field never takes the place of a field of ours
        return orjson.dumps({name: _encodable(value) for name, value in line.items()}, default=str).decode()


class TextFormatter(logging.Formatter):
    """One readable line, then the exception's own lines. For terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters from outside are escaped, so one event stays one line."""
        words = [_time(record), record.levelname.ljust(7), record.name, record.getMessage()]
        words += [f"{name}={value}" for name, value in _extras(record).items()]
        line = _CONTROL.sub(lambda found: repr(found.group())[1:-1], " ".join(words))
        trace = _trace(self, record)
        return _utf8(line if trace is None else f"{line}\n{trace}")


def of(request_id: object) -> dict[str, str]:
    """Return the extra field that ties a line to the request whose answer has this X-Request-Id."""
    return {"request_id": str(request_id)}


def setup(settings: LoggingSettings, stream: TextIO | None = None) -> logging.Handler:
    """Send all logging to `stream` (standard error), replacing what an earlier call or the server set up.

    Returns the handler. Call it in every worker, after the server has configured its own logging.
    """
    handler = _handler() if stream is None else logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    for logger in (root, *map(logging.getLogger, _SERVERS)):
        logger.handlers.clear()
        logger.propagate = True
    for name in (*_TALKATIVE, "hypercorn.error"):  # where it runs is said by our own lines
        logging.getLogger(name).setLevel(logging.WARNING)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    return handler


def _handler() -> logging.Handler:
    """Return what writes to standard error. A file takes lines at once; a pipe or a terminal may be full."""
    try:
        descriptor = sys.stderr.fileno()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):  # closed, or replaced by something that is no file
        return logging.StreamHandler(sys.stderr)
    return logging.StreamHandler(sys.stderr) if is_file else BackgroundHandler(descriptor)


def unless(expected: type[BaseException]) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that drops what the servers log of an exception that is raised on purpose, to make them cut.

    Otherwise every caller who stops reading writes a traceback into the log.
    """

    def keep(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, expected)

    return keep


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string or a broken __str__ must not fail the call that logs
        return f"{record.msg} (its arguments could not be formatted)"


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """Return exception and stack as masked text. Not kept in record.exc_text, which other handlers would reuse."""
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return redact("\n".join(parts)) if parts else None


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(value: object) -> object:
    """Return what orjson takes: text that is UTF-8, and integers of more than 64 bits (wei) as text."""
    if isinstance(value, str):
        return _utf8(value)
    return str(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _utf8(text: str) -> str:
    """Escape lone surrogates (from undecodable bytes): better a strange character than a lost line."""
    return text.encode("utf-8", "backslashreplace").decode()
