"""Ranking of suggestions, pure."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.suggest import Hit, rank, words_of

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def test_a_rare_word_counts_more_than_a_common_one_and_a_name_more_than_prose() -> None:
    hits = [
        Hit(A, "data", "B"),
        Hit(B, "data", "B"),
        Hit(C, "data", "B"),
        Hit(B, "weather", "C"),
        Hit(C, "weather", "A"),
    ]
    ranked = rank(["weather", "data"], hits, 10)
    assert [one.publisher_id for one in ranked] == [C, B, A]
    assert ranked[0].reason == "Matches weather in name; data in capabilities"


def test_a_word_that_is_in_several_fields_counts_in_the_best() -> None:
    assert rank(["x"], [Hit(A, "x", "C"), Hit(A, "x", "A")], 1)[0].score == 1.0


WORDS = ["alpha", "beta", "gamma", "delta"]
HITS = st.lists(st.builds(Hit, st.sampled_from([A, B, C]), st.sampled_from(WORDS), st.sampled_from("ABC")), max_size=20)


@given(HITS, st.integers(0, 1_000))
def test_scores_are_in_range_and_sorted(hits: list[Hit], publishers: int) -> None:
    ranked = rank(WORDS, hits, publishers)
    assert {one.publisher_id for one in ranked} == {hit.publisher_id for hit in hits}
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


@given(st.text(max_size=300))
def test_words_carry_no_operator_into_the_query(text: str) -> None:
    assert all(word.isalnum() for word in words_of(text))
    assert len(words_of(text)) <= 40
