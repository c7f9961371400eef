"""The tables of permissions, roles and rights are what the code says. A failing test shows the rows to paste."""

from __future__ import annotations

from gateway.identity.permissions import ACCOUNT_RIGHTS, DESCRIPTIONS, ROLES, AccountRight, Permission
from gateway.identity.roles import DESCRIPTIONS as OF_ROLES
from tests.docs.markdown import ROOT, rows

PAGE = ROOT / "docs" / "organizations.md"


def table(width: int) -> list[list[str]]:
    return [row for row in rows(PAGE, "| `") if len(row) == width]


def test_the_table_of_roles_is_the_codes() -> None:
    made = [
        [f"`{one.value}`", DESCRIPTIONS[one], *("yes" if one in held else "" for held in ROLES.values())]
        for one in Permission
    ]
    assert table(6) == made, "\n".join(f"| {' | '.join(row)} |" for row in made)


def test_the_table_of_rights_is_the_codes() -> None:
    made = [[f"`{one.value}`", ACCOUNT_RIGHTS[one]] for one in AccountRight]
    assert table(2) == made, "\n".join(f"| {' | '.join(row)} |" for row in made)


def test_everything_is_explained() -> None:
    assert DESCRIPTIONS.keys() == set(Permission)
    assert ACCOUNT_RIGHTS.keys() == set(AccountRight)
    assert OF_ROLES.keys() == ROLES.keys()
