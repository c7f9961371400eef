"""What a query would cost, told for nothing: planned in the same sandbox, and rounded so that it tells no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from gateway.catalog.sales import Sale
from gateway.catalog.snapshot import Publisher
from gateway.errors import InvalidRequest
from gateway.proxy.kinds.query import planned_budget
from gateway.proxy.query_run import checked_query, not_run
from gateway.services import Services
from gateway.upstreams.postgres.errors import DatabaseError
from gateway.upstreams.postgres.parameters import BadParameter


async def estimated(
    services: Services, publisher: Publisher, sale: Sale, query: str, params: Sequence[Any], account_id: UUID | None
) -> int:
    """Return the rows that a query will probably be paid for, rounded up to 10, 20, 50, 100, …

    `account_id` is who asks, None for somebody unknown: what one payer's answers taught is not told to another.
    Raises QueryNotSold, QueryFailed, InvalidRequest and the problems of a database that does not answer.
    """
    market, checked = await checked_query(
        services.markets, publisher.id, sale, query, params=len(params), database=None
    )
    try:
        async with market.open(checked, params) as planned:
            asked = planned_budget(checked, planned, market, services.experiences, (publisher.id, account_id))
    except BadParameter as error:
        raise InvalidRequest(f"params: {error}.") from None
    except DatabaseError as error:
        services.metrics.upstream_error(publisher.slug, type(error).__name__)
        raise not_run(error) from error
    return asked.shown
