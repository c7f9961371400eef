"""Statements of wallets and publishers, as files: every line of a window with the balance after it. Extensions.

The first line is the opening balance and the last one the closing balance; a file without the last one was cut off.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.responses import StreamingResponse

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.downloads import Download
from admin_api.kit.envelope import rfc3339
from admin_api.kit.needs import WalletReader, needs
from admin_api.kit.problems import refusals
from admin_api.resources.consumption import Window, window
from gateway.analytics.revenue import purses
from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from gateway.errors import Unavailable
from gateway.identity.permissions import Permission
from gateway.json_text import json_text
from gateway.ledger.statements import Line, Opening, Subject, of_publisher, of_wallet, read
from gateway.ledger.wallets import FIND_WALLET
from gateway.services import Services
from pricing.money import format_amount

router = APIRouter(tags=["extensions"], route_class=StrictRoute)

FORMATS = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
FILES: dict[int | str, dict[str, Any]] = {
    **refusals(400, 401, 403, 503),
    200: {"content": {media: {"schema": {"type": "string"}} for media in FORMATS.values()}},
}
EXTENSION: dict[str, Any] = {"x-extension": True}
MOST_AT_ONCE = 4
"""Of one worker. Each has a connection of its own, and may read millions of lines."""
COLUMNS = ("at", "kind", "id", "counterparty", "description", "amount", "amount_atomic", "balance", "balance_atomic")
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are full-width
NOBODY = 0
"""The number of no wallet: nothing is booked on it."""
_running = 0


def _window(
    start: Annotated[str | None, Query(alias="from", description="YYYY-MM-DD in UTC; the first of this month.")] = None,
    end: Annotated[str | None, Query(alias="to", description="YYYY-MM-DD in UTC, included; today.")] = None,
) -> Window:
    return window(start, end, names=("from", "to"))


Days = Annotated[Window, Depends(_window)]
Format = Annotated[Literal["ndjson", "csv"], Query()]


def _asset(
    services: ServicesDep, asset_id: Annotated[UUID | None, Query(description="Of which money; the main one.")] = None
) -> Asset | None:
    if asset_id is None:
        return None
    asset = services.catalog.assets.get(asset_id)
    if asset is None:
        raise refused("asset_id", "is no asset of this gateway; a publisher's `accepted_assets` name its own")
    return services.catalog.assets[asset.ledger_asset_id]


Money = Annotated[Asset | None, Depends(_asset)]


@router.get(
    "/wallet/statement",
    operation_id="get_wallet_statement",
    response_class=StreamingResponse,
    responses=FILES,
    openapi_extra=EXTENSION,
)
async def get_wallet_statement(
    caller: WalletReader, services: ServicesDep, days: Days, money: Money, format: Format = "ndjson"
) -> Download:
    """Send every line of the caller's wallet in a window of UTC days, with the balance after each.

    A caller has a wallet for each asset in which it has money; without `asset_id` it is that of `GET /wallet/balance`.
    """
    asset = money or services.catalog.default_asset
    async with services.database.acquire() as connection:
        wallet = await FIND_WALLET.first(connection, caller.account_id, asset.id)
    return _file(services, Paper(of_wallet(NOBODY if wallet is None else wallet.id), asset, days, format), "wallet")


@router.get(
    "/organizations/{organization_id}/publishers/{publisher_id}/statement",
    operation_id="get_publisher_statement",
    dependencies=[needs(Permission.EARNINGS_READ)],
    response_class=StreamingResponse,
    responses={**FILES, **refusals(404)},
    openapi_extra=EXTENSION,
)
async def get_publisher_statement(
    organization_id: UUID,
    publisher_id: UUID,
    services: ServicesDep,
    days: Days,
    money: Money,
    format: Format = "ndjson",
) -> Download:
    """Send every line of the publisher's earnings in an asset, its primary one by default, with the balance after."""
    async with services.database.acquire() as connection:
        (main, *_) = await purses(connection, organization_id, publisher_id)
        asset = money or services.catalog.assets[main.asset_id]
        subject = await of_publisher(connection, publisher_id, asset.id)
    return _file(services, Paper(subject, asset, days, format), f"publisher-{publisher_id}")


@dataclass(frozen=True, slots=True)
class Paper:
    """What is asked for."""

    subject: Subject
    asset: Asset
    days: Window
    format: str


def _file(services: Services, paper: Paper, name: str) -> Download:
    if _running >= MOST_AT_ONCE:
        raise Unavailable(f"{MOST_AT_ONCE} statements are being read just now, which is all at once. Try again soon.")
    file = f"{name}-{paper.days.first}-{paper.days.last}.{paper.format}"
    patience = services.settings.proxy.client_timeout
    return Download(_written(services, paper), file, FORMATS[paper.format], patience)


async def _written(services: Services, paper: Paper) -> AsyncGenerator[bytes]:
    """Write the lines with a running balance, batch by batch."""
    global _running  # noqa: PLW0603 - a count of this process, like its connections
    _running += 1
    try:
        balance, days = 0, paper.days
        if paper.format == "csv":
            yield _rows([COLUMNS])
        async with aclosing(read(services.settings.database, paper.subject, days.since, days.until)) as batches:
            async for part in batches:
                if isinstance(part, Opening):
                    balance = part.balance
                    yield _text(paper, [_end(paper, "opening", days.since, balance, _note(part.archived))])
                else:
                    lines: list[dict[str, Any]] = []
                    for line in part:
                        balance += line.change
                        lines.append(_shown(paper, line, balance))
                    yield _text(paper, lines)
        yield _text(paper, [_end(paper, "closing", days.until, balance, None)])
    finally:
        _running -= 1


def _note(archived: datetime | None) -> str | None:
    if archived is None:
        return None
    return f"calls before {archived:%Y-%m-%d} are archived: they have no lines, and their sum is in this balance"


def _end(paper: Paper, kind: str, at: datetime, balance: int, note: str | None) -> dict[str, Any]:
    return {
        "at": rfc3339(at),
        "kind": kind,
        "id": None,
        "counterparty": None,
        "description": note,
        "amount": None,
        "amount_atomic": None,
        "balance": format_amount(balance, paper.asset.decimals, places=2),
        "balance_atomic": balance,
    }


def _shown(paper: Paper, line: Line, balance: int) -> dict[str, Any]:
    return {
        "at": rfc3339(line.at),
        "kind": line.kind,
        "id": str(line.cause_id),
        "counterparty": line.counterparty,
        "description": line.description,
        "amount": format_amount(line.change, paper.asset.decimals, places=2),
        "amount_atomic": line.change,
        "balance": format_amount(balance, paper.asset.decimals, places=2),
        "balance_atomic": balance,
    }


def _text(paper: Paper, lines: list[dict[str, Any]]) -> bytes:
    if paper.format == "csv":
        return _rows([_cell(name, line[name]) for name in COLUMNS] for line in lines)
    return b"".join(json_text(line) + b"\n" for line in lines)


def _rows(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(name: str, value: object) -> str:
    """Return a cell that no spreadsheet takes for a formula. Of numbers the sign is a sign; what they are is ours."""
    text = "" if value is None else str(value)
    ours = name in ("amount", "amount_atomic", "balance", "balance_atomic")
    return f"'{text}" if not ours and text.startswith(_FORMULA) else text
