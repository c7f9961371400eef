"""What an operator may name, by any name that people have for it: publisher, key, account, organization, wallet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import InvalidRequest, NotFound
from gateway.suspensions import Kind

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
KEY = re.compile(r"(?:seren_)?([0-9a-f]{16})(?:_[A-Za-z0-9]*)?")
ADDRESS = re.compile(r"(?:eip155:[0-9]{1,32}:)?(0x[0-9a-f]{40})", re.I)
PREPAID = re.compile(r"agent:([0-9a-f-]{36})(?:/.*)?", re.I)
NAMED_BY = {
    "publisher": "its slug or id",
    "key": "its prefix (seren_0123456789abcdef_), key id or id",
    "account": "its id, e-mail address or an agent's name",
    "organization": "its id or slug",
    "wallet": "agent:<account id>, or an address 0x… on any chain",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that can be suspended. `subject` is how suspensions name it, `label` how people do.

    `organization_id` is whose audit log hears of it, None for nobody's; `id` is None for an address on a chain.
    """

    kind: Kind
    subject: str
    label: str
    id: UUID | None
    organization_id: UUID | None


@dataclass(frozen=True, slots=True)
class _Found:
    id: UUID
    label: str
    organization_id: UUID | None


# $1 is the name, $2 the same as an id where it is one.
FIND_PUBLISHER = Statement(
    "SELECT id, slug AS label, organization_id FROM catalog.publisher WHERE slug = $1 OR id = $2", _Found
)
FIND_KEY_NAMED = Statement(
    """
    SELECT id, 'seren_' || key_id || '_' AS label, organization_id FROM identity.api_key WHERE key_id = $1 OR id = $2
    """,
    _Found,
)
FIND_ACCOUNT_NAMED = Statement(
    """
    SELECT a.id, a.name AS label,
           (SELECT o.id FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
             WHERE m.account_id = a.id AND o.deleted_at IS NULL
             ORDER BY o.is_personal DESC, m.created_at, o.id LIMIT 1) AS organization_id
      FROM identity.account a
     WHERE a.id = $2 OR (a.kind = 'human' AND lower(a.email) = lower($1))
        OR (a.kind = 'agent' AND lower(a.name) = lower($1))
     ORDER BY a.id LIMIT 1
    """,
    _Found,
)
FIND_ORGANIZATION_NAMED = Statement(
    "SELECT id, slug AS label, id AS organization_id FROM identity.organization WHERE slug = $1 OR id = $2", _Found
)
FINDERS = {
    "publisher": FIND_PUBLISHER,
    "key": FIND_KEY_NAMED,
    "account": FIND_ACCOUNT_NAMED,
    "organization": FIND_ORGANIZATION_NAMED,
}


async def resolve(connection: Connection, kind: Kind, name: str) -> Subject:
    """Return what a name means. Raises NotFound, or InvalidRequest for a text that cannot name such a thing."""
    if kind == "wallet":
        return await _wallet(connection, name)
    row_id = UUID(name) if ID.fullmatch(name) else None
    key = KEY.fullmatch(name) if kind == "key" else None  # a whole key, pasted, is cut to its public part
    found = await FINDERS[kind].first(connection, key[1] if key else name, row_id)
    if found is None:
        raise NotFound(f"There is no {kind} of this name; name it by {NAMED_BY[kind]}.")
    return Subject(kind, str(found.id), found.label, found.id, found.organization_id)


async def _wallet(connection: Connection, name: str) -> Subject:
    address = ADDRESS.fullmatch(name)
    if address is not None:  # of whomever, on any chain: it need not have been here yet
        return Subject("wallet", address[1].lower(), address[1].lower(), None, None)
    prepaid = PREPAID.fullmatch(name)
    if prepaid is None or not ID.fullmatch(prepaid[1]):
        raise InvalidRequest(f"This is no wallet; name it by {NAMED_BY['wallet']}.")
    account = await FIND_ACCOUNT_NAMED.first(connection, "", UUID(prepaid[1]))
    if account is None:
        raise NotFound("There is no prepaid wallet of this name.")
    subject = f"agent:{account.id}"
    return Subject("wallet", subject, subject, account.id, account.organization_id)
