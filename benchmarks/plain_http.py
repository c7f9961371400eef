"""The few HTTP helpers that several benchmarks share: free ports, waiting for a server, one plain GET."""

from __future__ import annotations

import http.client
import time

from gateway.devservices.processes import Child, ServiceError, free_port

__all__ = ["END", "HOST", "free_port", "get", "until_answers"]

HOST = "127.0.0.1"
END = b"\r\n\r\n"


def get(port: int, path: str, key: str | None = None) -> tuple[int, bytes]:
    """Return status and body of one GET on a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until_answers(child: Child, port: int, path: str, status: int, *, seconds: float = 60.0) -> None:
    """Wait until `path` is answered with `status`. Raises ServiceError with the process's last word."""
    deadline = time.monotonic() + seconds
    last = "no answer"
    while time.monotonic() < deadline:
        if not child.alive():
            break
        try:
            found, _ = get(port, path)
        except (OSError, http.client.HTTPException) as error:
            last = type(error).__name__
        else:
            if found == status:
                return
            last = f"status {found}"
        time.sleep(0.05)
    raise ServiceError(f"{child.name} {child.fate()} ({last}): {child.complaint() or 'it said nothing'}")
