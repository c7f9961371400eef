"""The OpenAPI document as it is served, made once in a process: it takes a second, and many files ask it what there is."""

from __future__ import annotations

from typing import Any

from admin_api.app import build, document

DOCUMENT: dict[str, Any] = document(build(None))  # pyright: ignore[reportArgumentType] - it needs no parts
