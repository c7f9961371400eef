"""Invitations into an organization: addressed to an e-mail address, carried by a token, good for a week.

The token is shown once to who invites, and a letter carries one of its own to the address. A person accepts it with an
account of the invited address; an agent has no address, so its token is all that it shows. What was promised must still
be there to give: an invitation is dead when who made it has left, or may no longer give that role, as it is when it was
revoked, answered or is too old. To outsiders all of these are one answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, NotFound
from gateway.identity.members import demand_can_give
from gateway.identity.permissions import LOCK_ORGANIZATION, STANDING, Member, Permission, locked
from gateway.identity.principals import Principal
from gateway.identity.roles import BUILT_IN, Role, find_role
from gateway.identity.tokens import TokenKind, hash_of, new_token
from gateway.ids import uuid7
from gateway.mail import letters, outbox
from gateway.mail.letters import Letter
from gateway.mail.outbox import Composer, Due, LetterKind

LIFETIME = timedelta(days=7)
MAX_OPEN = 1_000
"""Open invitations of one organization."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation; nothing secret."""

    id: UUID
    organization_id: UUID
    email: str
    role: str
    role_id: UUID | None
    invited_by: UUID
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    declined_at: datetime | None
    revoked_at: datetime | None

    @property
    def status(self) -> str:
        """Return pending, or how it ended."""
        for name in ("accepted", "declined", "revoked"):
            if getattr(self, f"{name}_at") is not None:
                return name
        return "pending" if self.expires_at > datetime.now(UTC) else "expired"


_SHOWN = """
    SELECT i.id, i.organization_id, i.email, coalesce(r.name, i.role) AS role, i.role_id, i.invited_by, i.created_at,
           i.expires_at, i.accepted_at, i.declined_at, i.revoked_at
      FROM identity.invitation i LEFT JOIN identity.role r ON r.id = i.role_id
"""
LIST_INVITATIONS = Statement(_SHOWN + " WHERE i.organization_id = $1 ORDER BY i.created_at DESC, i.id DESC", Invitation)
FIND_INVITATION = Statement(_SHOWN + " WHERE i.organization_id = $1 AND i.id = $2", Invitation)
# With the role as it was promised: its name says whether it is built in.
_PROMISED = """
    SELECT i.id, i.organization_id, i.email, i.role, i.role_id, i.invited_by, i.created_at, i.expires_at, i.accepted_at,
           i.declined_at, i.revoked_at
      FROM identity.invitation i
"""
FIND_BY_TOKEN = Statement(
    _PROMISED + " JOIN identity.invitation_token t ON t.invitation_id = i.id WHERE t.hash = $1", Invitation
)
FIND_ANYWHERE = Statement(_PROMISED + " WHERE i.id = $1", Invitation)
INSERT_INVITATION = Command(
    """
    INSERT INTO identity.invitation (id, organization_id, email, role, role_id, invited_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval)
    """
)
INSERT_INVITATION_TOKEN = Command("INSERT INTO identity.invitation_token (hash, invitation_id) VALUES ($1, $2)")
ACCEPTED = Command("UPDATE identity.invitation SET accepted_at = now(), accepted_by = $2 WHERE id = $1")
DECLINED = Command("UPDATE identity.invitation SET declined_at = now() WHERE id = $1")
REVOKED = Command("UPDATE identity.invitation SET revoked_at = now() WHERE id = $1")
IS_MEMBERS_ADDRESS = Statement(
    """
    SELECT EXISTS (SELECT FROM identity.membership m JOIN identity.account a ON a.id = m.account_id
                    WHERE m.organization_id = $1 AND lower(a.email) = $2)
    """,
    bool,
    scalar=True,
)
ADDRESS_OF_PERSON = Statement(
    "SELECT lower(email) FROM identity.account WHERE id = $1 AND kind = 'human'", str, scalar=True
)
JOIN = Command("INSERT INTO identity.membership (organization_id, account_id, role, role_id) VALUES ($1, $2, $3, $4)")


async def list_invitations(connection: Connection, organization_id: UUID) -> list[Invitation]:
    """Return every invitation of an organization, newest first, ended ones too."""
    return await LIST_INVITATIONS.all(connection, organization_id)


async def invite(
    connection: Connection, member: Member, email: str, role: Role, *, mailed: bool
) -> tuple[Invitation, str]:
    """Invite an address, by letter if it is to be `mailed`, and return the invitation with its token, kept nowhere.

    Raises Forbidden for a role that holds more than the member does, Conflict for who is a member or invited already.
    """
    actor = await locked(connection, member, Permission.ORG_MANAGE_MEMBERS)
    demand_can_give(actor, role)
    if await IS_MEMBERS_ADDRESS.one(connection, actor.organization_id, email):
        raise Conflict("A member has this address already.", field="email")
    pending = [one for one in await list_invitations(connection, actor.organization_id) if one.status == "pending"]
    if any(one.email == email for one in pending):
        raise Conflict("This address is invited already. Revoke that invitation to make another one.", field="email")
    if len(pending) >= MAX_OPEN:
        raise Conflict(f"This organization has {MAX_OPEN} open invitations; revoke some first.")
    made, token = uuid7(), new_token(TokenKind.INVITE)
    name, role_id = role.name, None if role.is_built_in else role.id
    await INSERT_INVITATION.run(
        connection, made, actor.organization_id, email, name, role_id, actor.caller.account_id, LIFETIME
    )
    await INSERT_INVITATION_TOKEN.run(connection, token.hash, made)
    if mailed:
        await outbox.post(connection, LetterKind.INVITATION, email, made)
    found = await find(connection, actor.organization_id, made)
    await record(connection, "invitation.create", actor.organization_id, made, after=found, details={"role": name})
    return found, token.text


async def remind(connection: Connection, member: Member, invitation_id: UUID, *, mailed: bool) -> Invitation:
    """Send the letter of an open invitation again, if it is to be `mailed`. Raises NotFound, Conflict, Forbidden."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_MEMBERS)
    found = await find(connection, actor.organization_id, invitation_id)
    if found.status != "pending":
        raise Conflict(f"This invitation is {found.status}; make another one.")
    if mailed:
        await outbox.post(connection, LetterKind.INVITATION, found.email, found.id)
    await record(connection, "invitation.resend", actor.organization_id, found.id)
    return found


async def revoke_invitation(connection: Connection, member: Member, invitation_id: UUID) -> None:
    """End an open invitation; one that has ended otherwise stays so. Raises NotFound, Conflict."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_MEMBERS)
    found = await find(connection, actor.organization_id, invitation_id)
    if found.status in ("accepted", "declined"):
        raise Conflict(f"This invitation was {found.status}.")
    if found.revoked_at is None:
        await REVOKED.run(connection, invitation_id)
        await record(connection, "invitation.revoke", actor.organization_id, invitation_id, before=found)


async def accept(connection: Connection, caller: Principal, token: str) -> Invitation:
    """Join by an invitation. Raises NotFound for every token that is not good for the caller, Conflict for a member."""
    found, role = await _open(connection, caller, token)
    organization_id = found.organization_id
    if await STANDING.first(connection, organization_id, caller.account_id) is not None:
        raise Conflict("You are a member of this organization already.")
    await JOIN.run(connection, organization_id, caller.account_id, *role.stored)
    await ACCEPTED.run(connection, found.id, caller.account_id)
    await record(connection, "invitation.accept", organization_id, found.id, details={"role": role.name})
    await record(connection, "member.add", organization_id, caller.account_id, after={"role": role.name})
    return replace(found, role=role.name, accepted_at=datetime.now(UTC))


async def look(connection: Connection, caller: Principal, token: str) -> Invitation:
    """Return an invitation to whom it is for. Raises NotFound for every token that is not good for the caller."""
    found, role = await _open(connection, caller, token)
    return replace(found, role=role.name)


async def decline(connection: Connection, caller: Principal, token: str) -> None:
    """Turn an invitation down. Raises NotFound for every token that is not good for the caller."""
    found, _ = await _open(connection, caller, token)
    await DECLINED.run(connection, found.id)
    await record(connection, "invitation.decline", found.organization_id, found.id, before=found)


async def _open(connection: Connection, caller: Principal, token: str) -> tuple[Invitation, Role]:
    """Return a pending invitation that the caller may answer, its organization locked. Raises NotFound."""
    dead = NotFound("This invitation is unknown, ended, too old, or for somebody else. Ask for another one.")
    digest = hash_of(TokenKind.INVITE, token)
    if digest is None:
        raise dead
    found = await FIND_BY_TOKEN.first(connection, digest)
    if found is None or not await LOCK_ORGANIZATION.first(connection, found.organization_id):
        raise dead
    found = await FIND_BY_TOKEN.one(connection, digest)  # as it is now that nobody else changes it
    address = await ADDRESS_OF_PERSON.first(connection, caller.account_id)
    role = await _promised(connection, found)
    if found.status != "pending" or role is None or (address is not None and address != found.email):
        raise dead
    return found, role


async def _promised(connection: Connection, invitation: Invitation) -> Role | None:
    """Return the role that an invitation brings, None when who made it could not give it any more."""
    if invitation.role_id is None:
        role = BUILT_IN.get(invitation.role)
    else:
        role = await find_role(connection, invitation.organization_id, role_id=invitation.role_id)
    inviter = await STANDING.first(connection, invitation.organization_id, invitation.invited_by)
    if role is None or inviter is None or Permission.ORG_MANAGE_MEMBERS not in inviter.held:
        return None
    return role if role.permissions <= inviter.held else None


async def _letter(connection: Connection, due: Due, public_url: str) -> Letter | None:
    """Write the letter of an invitation with a token of its own; none for one that is dead by now."""
    found = None if due.about is None else await FIND_ANYWHERE.first(connection, due.about)
    if found is None or not await LOCK_ORGANIZATION.first(connection, found.organization_id):
        return None
    found = await FIND_ANYWHERE.one(connection, found.id)  # as it is now that nobody else changes it
    if found.status != "pending" or await _promised(connection, found) is None:
        return None
    token = new_token(TokenKind.INVITE)
    await INSERT_INVITATION_TOKEN.run(connection, token.hash, found.id)
    return letters.invitation(due.recipient, public_url, token.text)


async def find(connection: Connection, organization_id: UUID, invitation_id: UUID) -> Invitation:
    """Return an invitation of an organization. Raises NotFound."""
    found = await FIND_INVITATION.first(connection, organization_id, invitation_id)
    if found is None:
        raise NotFound("This organization has no invitation with this id.")
    return found


COMPOSERS: dict[LetterKind, Composer] = {LetterKind.INVITATION: _letter}
