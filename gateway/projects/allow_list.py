"""From which addresses a project is reached: its IP allow-list, asked and changed.

No entry means that everybody reaches it, as far as permissions go. With entries, whoever asks from an address that none
of them contains is refused, members included, also when they ask to see or change the list: else a stolen login would
open the project from wherever the thief is. So a change that would shut out the address it is asked from is refused
unless it is forced, and who shut everybody out needs the operator (`tollway project ip-allow clear`).

Networks have the same one form as those of API keys (gateway/identity/allowed_addresses.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.audit.entries import record
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import AddressNotAllowed, Conflict, NotFound, WouldLockOut
from gateway.identity.allowed_addresses import MOST
from gateway.identity.clients import Address, Network, is_in
from gateway.ids import uuid7
from gateway.projects.projects import Project, locked


@dataclass(frozen=True, slots=True)
class Entry:
    """A network from which a project is reached."""

    id: UUID
    project_id: UUID
    network: Network
    description: str | None
    created_by: UUID
    created_at: datetime
    updated_at: datetime

    @property
    def text(self) -> str:
        """Return the network as it is shown: a single address without a length."""
        single = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address) if single else str(self.network)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network that is to be in the list."""

    network: Network
    description: str | None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a change, from where, and whether it may shut that place out."""

    account_id: UUID
    address: Address | None
    may_lock_out: bool


LIST = Statement(
    """
    SELECT id, project_id, network, description, created_by, created_at, updated_at
      FROM project.allowed_address WHERE project_id = $1 ORDER BY created_at DESC, id DESC
    """,
    Entry,
)
INSERT = Command(
    """
    INSERT INTO project.allowed_address (id, project_id, network, description, created_by) VALUES ($1, $2, $3, $4, $5)
    """
)
DESCRIBE = Command("UPDATE project.allowed_address SET description = $2, updated_at = now() WHERE id = $1")
REMOVE = Command("DELETE FROM project.allowed_address WHERE id = ANY ($1::uuid[])")


async def demand_reachable(connection: Connection, project_id: UUID, address: Address | None) -> None:
    """Raise AddressNotAllowed where a project is not to be reached from an address, or from one that nobody knows."""
    _demand(await LIST.all(connection, project_id), address)


async def add(connection: Connection, project_id: UUID, wanted: Wanted, asker: Asker) -> Entry:
    """Put a network into the list. Raises NotFound, AddressNotAllowed, Conflict, WouldLockOut."""
    project, before = await _begun(connection, project_id, asker)
    if any(entry.network == wanted.network for entry in before):
        raise Conflict(f"{wanted.network} is in this list already.", field="ip_address")
    if len(before) >= MOST:
        raise Conflict(f"A project's list may have at most {MOST} entries.", limit=MOST)
    after = [*(entry.network for entry in before), wanted.network]
    _no_lock_out(after, asker)
    entry_id = uuid7()
    await INSERT.run(connection, entry_id, project_id, wanted.network, wanted.description, asker.account_id)
    entries = await LIST.all(connection, project_id)
    entry = next(one for one in entries if one.id == entry_id)
    await _note(connection, "ip_allow_list.add", project, before, entries, ip_address=entry.text)
    return entry


async def reset(connection: Connection, project_id: UUID, wanted: Sequence[Wanted], asker: Asker) -> list[Entry]:
    """Make the list what is wanted, or leave it whole. A network that was in it keeps its id.

    Raises NotFound, AddressNotAllowed, WouldLockOut, or InvalidRequest for a network that is wanted twice.
    """
    project, before = await _begun(connection, project_id, asker)
    for position, one in enumerate(wanted):
        if any(other.network == one.network for other in wanted[:position]):
            raise refused(f"entries.{position}.ip_address", f"names {one.network} a second time")
    _no_lock_out([one.network for one in wanted], asker)
    there = {entry.network: entry for entry in before}
    kept = {one.network for one in wanted}
    await REMOVE.run(connection, [entry.id for entry in before if entry.network not in kept])
    for one in wanted:
        entry = there.get(one.network)
        if entry is None:
            await INSERT.run(connection, uuid7(), project_id, one.network, one.description, asker.account_id)
        elif entry.description != one.description:
            await DESCRIBE.run(connection, entry.id, one.description)
    entries = await LIST.all(connection, project_id)
    await _note(connection, "ip_allow_list.update", project, before, entries)
    return entries


async def remove(connection: Connection, project_id: UUID, entry_id: UUID, asker: Asker) -> None:
    """Take an entry out of the list. Raises NotFound, AddressNotAllowed, WouldLockOut."""
    project, before = await _begun(connection, project_id, asker)
    entry = next((one for one in before if one.id == entry_id), None)
    if entry is None:
        raise NotFound("This project's list has no entry with this id.")
    after = [one for one in before if one.id != entry_id]
    _no_lock_out([one.network for one in after], asker)
    await REMOVE.run(connection, [entry_id])
    await _note(connection, "ip_allow_list.remove", project, before, after, ip_address=entry.text)


async def clear(connection: Connection, project_id: UUID) -> list[Entry]:
    """Empty the list, for the operator, and return what was in it. Raises NotFound."""
    project = await locked(connection, project_id)
    before = await LIST.all(connection, project_id)
    await REMOVE.run(connection, [entry.id for entry in before])
    await _note(connection, "ip_allow_list.update", project, before, [])
    return before


async def _begun(connection: Connection, project_id: UUID, asker: Asker) -> tuple[Project, list[Entry]]:
    """Lock the project and ask its list once more: it may have become narrower since the request came in."""
    project = await locked(connection, project_id)
    entries = await LIST.all(connection, project_id)
    _demand(entries, asker.address)
    return project, entries


def _demand(entries: Sequence[Entry], address: Address | None) -> None:
    if not _reaches([entry.network for entry in entries], address):
        raise AddressNotAllowed(
            f"This project is not reached from {address or 'an unknown address'}. A member with ip_allow.manage can "
            "change its list, from an address in it."
        )


def _no_lock_out(networks: Sequence[Network], asker: Asker) -> None:
    if not asker.may_lock_out and not _reaches(networks, asker.address):
        seen = asker.address or "an unknown address"
        raise WouldLockOut(
            f"With this list nobody would reach the project from {seen}, where you ask from. Put that in first, or ask "
            "again with allow_lockout=true.",
            address=str(seen),
        )


def _reaches(networks: Sequence[Network], address: Address | None) -> bool:
    return not networks or (address is not None and is_in(address, networks))


async def _note(
    connection: Connection,
    action: str,
    project: Project,
    before: Sequence[Entry],
    after: Sequence[Entry],
    **details: Any,
) -> None:
    """Write down a change of the list as one of its project."""
    sides = [{one.text: one.description or "" for one in side} for side in (before, after)]
    await record(
        connection, action, project.organization_id, project.id, before=sides[0], after=sides[1],
        details={"name": project.name, "project_id": project.id, **details}, projects=[project.id],
    )  # fmt: skip
