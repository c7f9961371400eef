"""`tollway audit`: the proof that the audit log is whole, and the digest to keep elsewhere for the next proof."""

from __future__ import annotations

import asyncio

import click
import orjson

from gateway.audit.verify import Checkpoint, Proof, anchor, verify
from gateway.cli.context import settings_for_cli
from gateway.database.pool import Database, connect
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


@click.group()
def audit() -> None:
    """Prove the audit log."""


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
