"""What a rule of the proof finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One row that breaks a rule, in words; amounts are atomic units."""

    detail: str
