"""`tollway config`: is the configuration right, and which settings are there?"""

from __future__ import annotations

import asyncio
import os
from typing import cast
from urllib.parse import urlsplit

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.cli.context import chain_for_cli, settings_for_cli
from gateway.cli.preflight import require
from gateway.cli.rails import rails
from gateway.settings import SECRET_FIELDS, SHORT_NAMES, Settings, layers, mask, setting_names


@click.group()
def config() -> None:
    """Check and list settings."""


@config.command()
@click.option("--list", "listing", is_flag=True, help="Print every setting with its default.")
@click.option("--offline", is_flag=True, help="Check the values only, and open nothing.")
def check(listing: bool, offline: bool) -> int:
    """Check the settings, and open what they name: the stores, TLS files, keys and nodes of chains.

    Prints a line for each of them and `ok`. Wrong values are one line each and status 2, what cannot be used status 1.
    """
    if listing:
        click.echo("\n".join(every_setting()))
        return 0
    settings, env = settings_for_cli(), chain_for_cli()
    for warning in require(settings, env):
        click.echo(f"warning: {warning}")
    if offline:
        click.echo("ok")
        return 0
    from gateway.cli.opening import open_all  # its drivers are not needed for the rest

    findings = asyncio.run(open_all(settings, env))
    for finding in findings:
        click.echo(f"{'ok' if finding.fit else 'FAIL'}  {finding.name}: {finding.text}")
    for line in rails(settings, env):
        click.echo(line)
    if not all(finding.fit for finding in findings):
        return 1
    click.echo("ok")
    return 0


@config.command()
def show() -> int:
    """Print the value of each setting and where it comes from, secrets masked."""
    env = dict(os.environ)
    settings = settings_for_cli(env)
    _, origin = layers(env)
    for name, place in setting_names().items():
        if name != f"TOLLWAY_{place[0]}_{place[1]}".upper():
            continue
        value = getattr(getattr(settings, place[0]), place[1])
        shown = mask(value) if place in SECRET_FIELDS and value else repr(_shown(value))
        default = value == _field(*place).get_default()
        click.echo(f"{name}={shown}  # {origin.get(place) or ('default' if default else 'dev.json')}")
    for name in sorted(name for name in env if name.startswith("TOLLWAY_CHAIN_")):
        click.echo(f"{name}={_chain_value(name, env[name])}  # environment")
    return 0


def _chain_value(name: str, value: str) -> str:
    """Show addresses and paths; a node's URL may hold a key in its path, so only its host is shown."""
    if name.endswith(("_RPC", "_FACILITATOR")):
        return repr(" ".join(urlsplit(url).hostname or "***" for url in value.split()))
    public = name.endswith(("_KEYSTORE", "_PASSWORD_FILE", "_TREASURY", "_ADDRESS", "_NETWORKS"))
    return repr(value) if public else "'***'"


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
