"""Refusals by the server itself, of what never became a request: RFC 9457 problems, as everywhere else."""

from __future__ import annotations

from http import HTTPStatus

from gateway.dates import http_date
from gateway.errors import Problem
from gateway.ids import uuid7
from gateway.json_text import json_text


def problem_answer(problem: Problem, *, with_body: bool) -> bytes:
    """Return the whole answer, which ends the connection. `with_body` is False for HEAD."""
    fields, body = problem_parts(problem)
    lines = [b"HTTP/1.1 %d %b" % (problem.status, HTTPStatus(problem.status).phrase.encode())]
    lines += [b"%b: %b" % pair for pair in (*fields, (b"content-length", b"%d" % len(body)))]
    lines += [b"connection: close", b"", body if with_body else b""]
    return b"\r\n".join(lines)


def problem_parts(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the fields and the body of a refusal, without what frames it."""
    identity = str(uuid7())
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"x-request-id", identity.encode()),
        (b"x-cost", b"0"),
        date_field(),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    return fields, json_text(problem.document(identity))


def date_field() -> tuple[bytes, bytes]:
    """Return the Date of now."""
    return b"date", http_date()
