"""What a database publisher has on sale: relations and columns, by their exact names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view on sale. `columns` are names in their order; `whole` says that it has no others."""

    schema: str
    name: str
    columns: tuple[str, ...]
    whole: bool = True
    rows: int | None = None
    """Estimated row count, where the server keeps one."""


@dataclass(frozen=True, slots=True)
class OnSale:
    """All relations of a publisher, found by schema and name; a bare name is looked up along `search_path`."""

    search_path: tuple[str, ...]
    relations: Mapping[tuple[str, str], Relation] = field(default_factory=dict[tuple[str, str], Relation])

    @classmethod
    def of(cls, relations: Iterable[Relation]) -> OnSale:
        """Return what is on sale; the search path is the relations' schemas in their order."""
        listed = list(relations)
        path = tuple(dict.fromkeys(relation.schema for relation in listed))
        return cls(path, {(relation.schema, relation.name): relation for relation in listed})

    def find(self, name: str, schema: str | None) -> Relation | None:
        """Return the relation that a name means, or None when nothing of that name is on sale."""
        for candidate in (schema,) if schema is not None else self.search_path:
            found = self.relations.get((candidate, name))
            if found is not None:
                return found
        return None
