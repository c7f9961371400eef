"""`tollway audit`: what is in the audit log, the proof that it is whole, and the digest to keep for the next proof."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

import click
import orjson

from admin_api.kit.moments import moment
from admin_api.resources.audit_logs import shown
from gateway.audit.actions import ACTIONS
from gateway.audit.entries import NO_ORGANIZATION, Entry
from gateway.audit.log import Filter, page
from gateway.audit.verify import Checkpoint, Proof, anchor, verify
from gateway.cli.context import on_connection, settings_for_cli
from gateway.database.pool import Connection, Database, connect
from gateway.errors import InvalidRequest
from gateway.json_text import json_text
from gateway.operators.subjects import resolve
from gateway.settings import Settings


class Head(click.ParamType[tuple[int, bytes]]):
    """A checkpoint as `tollway audit` prints it: its number and its digest."""

    name = "NUMBER:DIGEST"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, bytes]:  # fmt: skip
        """Return number and digest."""
        number, _, digest = str(value).partition(":")
        try:
            return int(number), bytes.fromhex(digest)
        except ValueError:
            self.fail("must be as `tollway audit head` printed it, such as 17:9f86d081…", param, ctx)


class Moment(click.ParamType[datetime]):
    """A moment, or a day in UTC; `days` is what is added to a day."""

    name = "ISO 8601"

    def __init__(self, days: int = 0) -> None:
        self.days = days

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment."""
        if isinstance(value, datetime):
            return value
        try:
            return moment("it", str(value), self.days)
        except InvalidRequest:
            self.fail("must be a moment or a day, such as 2026-01-31T12:00:00Z or 2026-01-31", param, ctx)


class Action(click.ParamType[str]):
    """An action that is audited."""

    name = "RESOURCE.ACTION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the action."""
        if str(value) not in ACTIONS:
            self.fail(f"{value} is no action; docs/audit.md lists them", param, ctx)
        return str(value)


@click.group()
def audit() -> None:
    """Read and prove the audit log."""


@audit.command("list")
@click.option("--organization", help="Whose log, by id or slug. Default: the platform's own, with what operators did.")
@click.option("--actor", type=click.UUID, help="The account that acted.")
@click.option("--action", type=Action(), help="Such as wallet.correct.")
@click.option("--resource-type", help="Such as publisher.")
@click.option("--resource", type=click.UUID, help="The id of what was changed.")
@click.option("--status", type=click.Choice(["success", "denied"]))
@click.option("--category", type=click.Choice(sorted(set(ACTIONS.values()))))
@click.option("--since", type=Moment(), help="The first moment or day, in UTC unless it says another zone.")
@click.option("--until", type=Moment(days=1), help="The moment before which it ends, or the last day.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0, 1_000_000_000), default=0, show_default=True, help="Skip so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the API answers them.")
def list_command(
    organization: str | None, actor: UUID | None, action: str | None, resource_type: str | None,
    resource: UUID | None, status: str | None, category: str | None, since: datetime | None, until: datetime | None,
    limit: int, offset: int, *, as_json: bool,
) -> None:  # fmt: skip
    """List what was done, newest first. All filters have to match.

    Where there is more, the last line, on standard error, says with which
    --offset it goes on.
    """  # fmt: skip
    which = Filter(actor, action, resource_type, resource, status, category, since, until)

    async def run(connection: Connection) -> tuple[list[Entry], int]:
        chain = NO_ORGANIZATION
        if organization is not None:
            subject = await resolve(connection, "organization", organization)
            chain = UUID(subject.subject)
        return await page(connection, chain, which, limit=limit, offset=offset)

    entries, total = on_connection(run)
    for entry in entries:
        click.echo(json_text(shown(entry).model_dump(mode="json")).decode() if as_json else _entry(entry))
    end = offset + len(entries)
    if end < total:
        click.echo(f"{len(entries)} of {total}; go on with --offset {end}", err=True)


@audit.command("verify")
@click.option("--head", type=Head(), help="A head that was kept elsewhere: everything up to it must still be there.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
def verify_command(head: tuple[int, bytes] | None, as_json: bool) -> int:
    """Recompute every chain and checkpoint. Exit status 0 when nothing was changed, removed or moved, 1 otherwise."""
    proof = asyncio.run(_verify(settings_for_cli(), head))
    click.echo(orjson.dumps(_document(proof), option=orjson.OPT_INDENT_2).decode() if as_json else _text(proof))
    return 0 if proof.sound else 1


@audit.command("head")
def head_command() -> None:
    """Write a checkpoint of all that is logged, and print it. Keep the line where the database's owner cannot write."""
    last = asyncio.run(_head(settings_for_cli()))
    click.echo(_line(last) if last else "nothing is logged yet")


async def _verify(settings: Settings, kept: tuple[int, bytes] | None) -> Proof:
    connection = await connect(settings.database.direct)
    try:
        return await verify(connection, kept)
    finally:
        await connection.close()


async def _head(settings: Settings) -> Checkpoint | None:
    database = Database(settings.database.direct)
    await database.start()
    try:
        return await anchor(database)
    finally:
        await database.stop()


def _entry(entry: Entry) -> str:
    """Return an entry on one line. Texts that people chose are JSON, so that none of them looks like another line."""
    operator = entry.metadata.get("operator")
    actor = entry.actor_type if entry.actor_id is None else f"{entry.actor_type} {entry.actor_id}"
    who = f"{actor} ({json_text(operator).decode()})" if operator else actor
    what = "" if entry.resource_id is None else f"  {entry.resource_id}"
    refused = "" if entry.status == "success" else f"  {entry.status}"
    reason = entry.metadata.get("reason") or entry.error_message
    why = "" if reason is None else f"  {json_text(reason).decode()}"
    return f"{entry.created_at:%Y-%m-%d %H:%M:%S}  {entry.action}{what}  {who}{refused}{why}"


def _line(last: Checkpoint) -> str:
    return f"{last.number}:{last.digest.hex()}"


def _document(proof: Proof) -> dict[str, object]:
    return {
        "sound": proof.sound,
        "chains": proof.chains,
        "entries": proof.entries,
        "checkpoints": proof.checkpoints,
        "head": _line(proof.last) if proof.last else None,
        "findings": proof.findings,
    }


def _text(proof: Proof) -> str:
    lines = [f"{proof.entries} entries in {proof.chains} chains, {proof.checkpoints} checkpoints"]
    lines += [f"BROKEN: {finding}" for finding in proof.findings]
    if proof.last:
        lines.append(f"head {_line(proof.last)}")
    lines.append("the audit log is whole" if proof.sound else "THE AUDIT LOG WAS TAMPERED WITH")
    return "\n".join(lines)
