"""`tollway secrets`: make, rotate and check the keys that encrypt publishers' credentials.

1. new-key; add its line at the END of TOLLWAY_SECRET_KEYS on every gateway and restart them: all can open it
2. move it to the FRONT on every gateway and restart them: new credentials are sealed with it
3. rotate: the stored ones too
4. check; the keys it no longer names can go (receipts that an old key signed verify as long as it stays)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from gateway.cli.context import on_database, settings_for_cli
from gateway.database.pool import Database
from gateway.jobs.rotate import KeyUse, key_use
from gateway.jobs.rotate import rotate as rotate_credentials
from gateway.upstreams.credentials import CredentialBox, CredentialError, generate_key, parse_keys

Result = TypeVar("Result")


@click.group()
def secrets() -> None:
    """Make, rotate and check the keys that encrypt publishers' credentials."""


@secrets.command("new-key")
@click.option(
    "--id", "key_id", help="Its name; letters, digits, '.', '_', '-'. Default: today's date and four letters."
)
def new_key_command(key_id: str | None) -> None:
    """Print a new key as a line to add to TOLLWAY_SECRET_KEYS. It is shown once and kept nowhere."""
    key = generate_key()
    line = f"{key_id or _dated(key)}:{key}"
    try:
        parse_keys(line)
    except CredentialError as error:
        raise click.ClickException(str(error)) from None
    click.echo(line)
    click.echo(
        "Add it at the end of TOLLWAY_SECRET_KEYS on every gateway and restart them; then move it to the front, restart"
        " again, and run `tollway secrets rotate`.",
        err=True,
    )


@secrets.command("rotate")
@click.option("--force", is_flag=True, help="Go on although a running gateway lacks the current key.")
def rotate_command(force: bool) -> int:
    """Seal every stored credential under the first key of TOLLWAY_SECRET_KEYS.

    Gateways may serve meanwhile. May be killed and run again. Exit status 1 when a credential could not be opened.
    """
    done = _run(lambda database, box, dead_after: rotate_credentials(database, box, dead_after=dead_after, force=force))
    click.echo(f"{done.rotated} credentials are now under key {done.key_id}; {len(done.failed)} could not be opened")
    _complain(done.failed)
    return 1 if done.failed else 0


@secrets.command("check")
def check_command() -> int:
    """Open every stored credential and say which keys are in use.

    Exit status 1 when one does not open with the configured keys.
    """
    use = _run(lambda database, box, dead_after: key_use(database, box, dead_after=dead_after))
    for line in _lines(use, _box()):
        click.echo(line)
    click.echo(f"{use.opened} credentials open, {len(use.failed)} do not")
    _complain(use.failed)
    return 1 if use.failed else 0


def _lines(use: KeyUse, box: CredentialBox) -> Iterator[str]:
    for key_id in dict.fromkeys([*box.key_ids, *sorted(use.sealed)]):
        state = "configured" if key_id in box.key_ids else "NOT CONFIGURED"
        line = f"{key_id}: {'current' if key_id == box.current else state}, {use.sealed[key_id]} credentials"
        if use.workers[key_id]:
            yield f"{line}, seals new ones in {use.workers[key_id]} running gateway processes"
        elif key_id != box.current and not use.sealed[key_id]:
            yield f"{line}; it can be removed"
        else:
            yield line


def _complain(failed: dict[str, str]) -> None:
    for slug, reason in failed.items():
        click.echo(f"{slug}: {reason}", err=True)


def _dated(key: str) -> str:
    letters = "".join(letter for letter in key if letter.isalnum()).lower()
    return f"k{datetime.now(UTC):%Y%m%d}-{letters[:4]}"


def _box() -> CredentialBox:
    try:
        box = CredentialBox.from_setting(settings_for_cli().secrets.keys)
    except CredentialError as error:
        raise click.ClickException(f"TOLLWAY_SECRET_KEYS: {error}") from None
    if not box.key_ids:
        raise click.ClickException("TOLLWAY_SECRET_KEYS is empty; `tollway secrets new-key` makes a key")
    return box


def _run(work: Callable[[Database, CredentialBox, timedelta], Awaitable[Result]]) -> Result:
    box = _box()
    return on_database(lambda database, settings: work(database, box, timedelta(seconds=settings.money.dead_after)))
