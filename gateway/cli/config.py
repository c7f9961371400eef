"""`tollway config`: is the configuration right, and which settings are there?"""

from __future__ import annotations

from typing import cast

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.payments.evm import chains
from gateway.settings import SHORT_NAMES, Settings, load, setting_names


@click.group()
def config() -> None:
    """Check and list settings."""


@config.command()
@click.option("--list", "listing", is_flag=True, help="Print every setting with its default.")
def check(listing: bool) -> int:
    """Print `ok`, or one line per fault (and exit with status 2)."""
    if listing:
        click.echo("\n".join(every_setting()))
        return 0
    load()
    chains.check()
    click.echo("ok")
    return 0


def every_setting() -> list[str]:
    """Return one line per setting: its names, its default and what it means."""
    short: dict[tuple[str, str], str] = {place: name for name, place in SHORT_NAMES.items()}
    lines: list[str] = []
    for name, place in setting_names().items():
        if name in SHORT_NAMES and name != f"TOLLWAY_{place[0]}_{place[1]}".upper():
            continue
        other = short.get(place, name)
        also = f" (or {other})" if other != name else ""
        facts = _field(*place)
        meaning = f"  {facts.description}" if facts.description else ""
        lines.append(f"{name}={_shown(facts.default)}{also}{meaning}")
    return lines


def _field(section: str, name: str) -> FieldInfo:
    holder = cast("type[BaseModel]", Settings.model_fields[section].annotation)
    return holder.model_fields[name]


def _shown(value: object) -> str:
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
