"""The list of a publisher's documented endpoints, changed one by one. Pure.

An endpoint is known by its method and the shape of its path, so its id is made of these: it stays when the list is put
as a whole, imported again, or a placeholder gets another name. What does not live here: storing (publishers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from gateway.catalog import checks
from gateway.catalog.refusals import refused
from gateway.catalog.vocabulary import MAX_ENDPOINTS
from gateway.errors import Conflict, NotFound

Definition = dict[str, Any]
Change = Callable[[list[Definition]], list[Definition]]
"""Returns the list after a change of the list that is there. Raises Problem."""


def id_of(publisher_id: UUID, endpoint: Mapping[str, Any]) -> UUID:
    """Return the id of a publisher's endpoint."""
    return uuid5(publisher_id, f"{endpoint['method']} {checks.path_shape(endpoint['path'])}")


def find(publisher_id: UUID, endpoints: Sequence[Definition], wanted: UUID) -> Definition:
    """Return the endpoint of an id. Raises NotFound."""
    for endpoint in endpoints:
        if id_of(publisher_id, endpoint) == wanted:
            return endpoint
    raise NotFound("This publisher has no endpoint with this id.")


def adding(publisher_id: UUID, fresh: Definition) -> Change:
    """Return the change that adds an endpoint. It raises Conflict where its method and path are described already."""
    fresh_id = id_of(publisher_id, fresh)

    def change(endpoints: list[Definition]) -> list[Definition]:
        if any(id_of(publisher_id, one) == fresh_id for one in endpoints):
            raise Conflict(
                f"This publisher describes {fresh['method']} {fresh['path']} already.", endpoint_id=str(fresh_id)
            )
        if len(endpoints) >= MAX_ENDPOINTS:
            raise Conflict(f"A publisher may describe at most {MAX_ENDPOINTS} endpoints.", limit=MAX_ENDPOINTS)
        return [*_unmarked(endpoints, fresh), fresh]

    return change


def changing(publisher_id: UUID, wanted: UUID, changes: Mapping[str, Any]) -> Change:
    """Return the change of the fields that are named; null takes one away."""

    def change(endpoints: list[Definition]) -> list[Definition]:
        known = find(publisher_id, endpoints, wanted)
        merged = {name: value for name, value in {**known, **changes}.items() if value is not None}
        others = _unmarked([one for one in endpoints if one is not known], merged)
        if not changes:
            raise refused("body", "must name at least one field to change")
        others.insert(endpoints.index(known), merged)
        return others

    return change


def removing(publisher_id: UUID, wanted: UUID) -> Change:
    """Return the change that takes an endpoint out."""

    def change(endpoints: list[Definition]) -> list[Definition]:
        known = find(publisher_id, endpoints, wanted)
        return [one for one in endpoints if one is not known]

    return change


def _unmarked(endpoints: list[Definition], other: Mapping[str, Any]) -> list[Definition]:
    """Return endpoints without their mark as the default where another one has it: there is one default at most."""
    if not other.get("is_default"):
        return list(endpoints)
    return [{name: value for name, value in one.items() if name != "is_default"} for one in endpoints]
