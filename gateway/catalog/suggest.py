"""Which publishers suit a task described in words: PostgreSQL finds them, pure arithmetic ranks and explains.

The words are joined by OR, because nobody describes a task in a seller's exact terms; stop words and inflections are
the text search configuration's business, and each word also matches as a prefix. A word that few publishers have says
more than one that all have (inverse document frequency), and counts more in a name than in prose. Words that match
nothing are looked up once more as misspellings of words that the catalog has.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement

MAX_WORDS = 40
CANDIDATES = 500
# A name says most, then what it can do, then the prose (weights of catalog.fill_search).
FIELD_WEIGHTS = {"A": 1.0, "B": 0.75, "C": 0.4}
FIELD_NAMES = {"A": "name", "B": "capabilities", "C": "description"}
# The weight of a word that nobody has: little, since real sentences have many words besides the subject.
MISSING = 0.2
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Hit:
    """One word of the task found in one publisher, in the best field that has it (A, B or C)."""

    publisher_id: UUID
    word: str
    field: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A publisher with its score in 0..1 and the reason in words."""

    publisher_id: UUID
    score: float
    reason: str


FIND_HITS = Statement(
    """
    WITH word AS MATERIALIZED (
        SELECT w AS word, to_tsquery('english', w || ':*') AS any_field, to_tsquery('english', w || ':*A') AS in_name,
               to_tsquery('english', w || ':*B') AS in_capabilities
          FROM unnest($1::text[]) AS w
    )
    SELECT p.id AS publisher_id, word.word,
           CASE WHEN p.search @@ word.in_name THEN 'A' WHEN p.search @@ word.in_capabilities THEN 'B'
                ELSE 'C' END AS field
      FROM word JOIN catalog.publisher p ON p.search @@ word.any_field
     WHERE numnode(word.any_field) > 0 AND p.is_active AND NOT p.suspended AND p.deleted_at IS NULL
     ORDER BY field, p.id LIMIT $2
    """,
    Hit,
)
MEANINGFUL = Statement(
    "SELECT w FROM unnest($1::text[]) AS w WHERE numnode(to_tsquery('english', w)) > 0", str, scalar=True
)
COUNT_ACTIVE = Statement(
    "SELECT count(*) FROM catalog.publisher WHERE is_active AND NOT suspended AND deleted_at IS NULL", int, scalar=True
)
# Words as sellers write them, to correct misspellings by; bounded, because a catalog can be large.
VOCABULARY = Statement(
    """
    SELECT DISTINCT w FROM (SELECT search_text FROM catalog.publisher
                             WHERE is_active AND NOT suspended AND deleted_at IS NULL
                             ORDER BY created_at DESC LIMIT 2000) p,
           LATERAL regexp_split_to_table(p.search_text, '[^[:alnum:]]+') AS w
     WHERE length(w) BETWEEN 4 AND 30 LIMIT 20000
    """,
    str,
    scalar=True,
)


async def suggest(connection: Connection, task: str, limit: int) -> list[Suggestion]:
    """Return the publishers that suit a task best, best first; ties by id."""
    words = await MEANINGFUL.all(connection, words_of(task))
    if not words:
        return []
    hits = await FIND_HITS.all(connection, words, CANDIDATES * MAX_WORDS)
    unmatched = [word for word in words if word not in {hit.word for hit in hits} and len(word) > 3]
    if unmatched:
        hits += await _misspelt(connection, unmatched)
    return rank(words, hits, await COUNT_ACTIVE.one(connection))[:limit]


def words_of(task: str) -> list[str]:
    """Return the distinct words of a task, in order."""
    return list(dict.fromkeys(_WORD.findall(task.lower())))[:MAX_WORDS]


def rank(words: Sequence[str], hits: Sequence[Hit], publishers: int) -> list[Suggestion]:
    """Return publishers by how much of the task they match."""
    found: dict[UUID, dict[str, str]] = defaultdict(dict)
    for hit in hits:
        best = found[hit.publisher_id].get(hit.word, "Z")
        found[hit.publisher_id][hit.word] = min(best, hit.field)
    weights = _weights(words, found, publishers)
    # What a publisher would score that has every word in its name. The same for all: another match never costs.
    best = sum(weights.values())
    ranked = [Suggestion(key, _score(weights, best, fields), _reason(fields)) for key, fields in found.items()]
    return sorted(ranked, key=lambda suggestion: (-suggestion.score, suggestion.publisher_id))


def _weights(words: Sequence[str], found: Mapping[UUID, Mapping[str, str]], publishers: int) -> dict[str, float]:
    counts = {word: sum(word in fields for fields in found.values()) for word in words}
    return {
        word: math.log(1 + (publishers + 1) / (count + 0.5)) if count else MISSING for word, count in counts.items()
    }


def _score(weights: Mapping[str, float], best: float, fields: Mapping[str, str]) -> float:
    return round(min(1.0, sum(weights[word] * FIELD_WEIGHTS[field] for word, field in fields.items()) / best), 4)


def _reason(fields: Mapping[str, str]) -> str:
    parts: list[str] = []
    for field in sorted(set(fields.values())):
        words = ", ".join(word for word, where in fields.items() if where == field)
        parts.append(f"{words} in {FIELD_NAMES[field]}")
    return "Matches " + "; ".join(parts)


async def _misspelt(connection: Connection, words: Sequence[str]) -> list[Hit]:
    """Return hits of the closest words that the catalog has, told under the words as they were typed."""
    vocabulary = await VOCABULARY.all(connection)
    closest = {word: difflib.get_close_matches(word, vocabulary, n=1, cutoff=0.8) for word in words[:8]}
    typed = {matches[0]: word for word, matches in closest.items() if matches}
    hits = await FIND_HITS.all(connection, list(typed), CANDIDATES)
    return [Hit(hit.publisher_id, typed[hit.word], hit.field) for hit in hits]
