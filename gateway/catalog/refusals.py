"""How a refused publisher field is told: 400 with the field's name, never its value."""

from __future__ import annotations

from gateway.errors import InvalidRequest


def refused(field: str, message: str) -> InvalidRequest:
    """Return the problem that says what is wrong with one field."""
    return InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])
