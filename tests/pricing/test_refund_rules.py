"""What publishers' own rules give back: table and properties, and the form against a whole JSON Schema validator."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.refund_rules import MOST_VALUES, RefundRules, fits, read_form

ROWS = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}}
WHOLE = RefundRules(empty_at="$")
EMPTY = RefundRules(empty_at="data.rows")
ERROR = RefundRules(error_at="error.code")
ITEM, CODES = RefundRules(empty_at="pages[0].rows"), RefundRules(error_at="errors.0.code")
FORM = RefundRules(form=read_form(ROWS))


@pytest.mark.parametrize(
    ("rules", "body", "reason"),
    [
        (WHOLE, "[]", "empty"), (WHOLE, "{}", "empty"), (WHOLE, "null", "empty"), (WHOLE, '""', "empty"),
        (WHOLE, " \n", "empty"), (WHOLE, "", "empty"), (WHOLE, "0", None), (WHOLE, "false", None), (WHOLE, "[0]", None),
        (WHOLE, '{"a": []}', None), (WHOLE, "[", None), (EMPTY, '{"data": {"rows": []}}', "empty"),
        (EMPTY, '{"data": {"rows": [1]}}', None), (EMPTY, '{"data": []}', None), (EMPTY, "[]", None), (EMPTY, '{"data": {"rows": null}}', "empty"), (EMPTY, " ", "empty"),
        (EMPTY, '{"data": {"rows": 0}}', None), (ERROR, '{"error": {"code": "E1"}}', "error"),
        (ERROR, '{"error": {"code": 0}}', None), (ERROR, '{"error": {"code": null}}', None), (ERROR, '{"error": "x"}', None),
        (ERROR, '{"error": {"code": false}}', None), (ERROR, "[1]", None), (ERROR, "", None), (ERROR, "x", None),
        (FORM, '{"rows": [1, 2]}', None), (FORM, '{"rows": [1, 2.5]}', "schema"), (FORM, '{"rows": [true]}', "schema"),
        (EMPTY, '{"data": {"rows": [], "mean": NaN}}', "empty"), (WHOLE, "NaN", "empty"),
        (ERROR, '{"error": {"code": NaN}}', None), (ERROR, '{"error": {"code": 1}, "n": -Infinity}', "error"),
        (FORM, '{"rows": [1], "mean": NaN}', "schema"), (EMPTY, '{"data": {"rows": [1], "mean": Infinity}}', None),
        (ITEM, '{"pages": [{"rows": []}]}', "empty"), (ITEM, '{"pages": [{"rows": [1]}]}', None), (ITEM, "[1]", None),
        (CODES, '{"errors": [{"code": 7}]}', "error"), (CODES, '{"errors": {"0": {"code": 7}}}', "error"),
        (CODES, '{"errors": []}', None), (CODES, '{"errors": "7"}', None),
        (FORM, "{}", "schema"), (FORM, "", "schema"), (FORM, "<html>", "schema"), (FORM, "[" * 2000, "schema"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_by_what_is_in_it(rules: RefundRules, body: str, reason: str | None) -> None:
    assert rules.of_body(body.encode()) == (reason and f"refund_rule_{reason}")


def test_a_failure_is_told_before_an_empty_result_and_that_before_the_form() -> None:
    rules = RefundRules(error_at="error", empty_at="rows", form=read_form({"required": ["x"]}))
    assert rules.of_body(b'{"error": 1, "rows": []}') == "refund_rule_error"
    assert rules.of_body(b'{"rows": []}') == "refund_rule_empty"
    assert rules.of_body(b'{"rows": [1]}') == "refund_rule_schema"


def test_late_is_later_than_promised() -> None:
    rules = RefundRules(later_than=2.0)
    assert (rules.of_time(2.0), rules.of_time(2.01), rules.reads) == (None, "refund_rule_late", False)
    assert RefundRules(empty_at="$").of_time(1e9) is None


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 2.0, -3.0]) | st.text("ab", max_size=3)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=3))
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
COUNT = st.integers(0, 3)


def schemas(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, unique=True),
            "enum": st.lists(SCALARS, min_size=1, max_size=4),
            "required": st.lists(NAMES, unique=True),
            "properties": st.dictionaries(NAMES, part, max_size=3),
            "additionalProperties": st.booleans(),
            "items": part,
            "minimum": st.integers(-3, 3),
            "maximum": st.sampled_from([-1, 0.5, 3]),
            **dict.fromkeys(
                ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"], COUNT
            ),
        },
    )


@given(schema=st.recursive(schemas(st.just({})), schemas, max_leaves=4), value=VALUES)
def test_the_form_says_what_a_validator_of_the_whole_standard_says(schema: dict[str, Any], value: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    assert fits(read_form(schema), value) == validator.is_valid(value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "no schema object"), (False, "no schema object"), ({"$ref": "#"}, "keyword '.ref'"),
        ({"pattern": "(a+)+$"}, "keyword 'pattern'"), ({"anyOf": [{}]}, "keyword 'anyOf'"), ({"type": "date"}, "a type"),
        ({"type": 5}, "no list of texts"), ({"enum": [[1]]}, "enum and const"), ({"enum": 5}, "no list"),
        ({"properties": []}, "no object"), ({"properties": {"a": 1}}, "no schema object"), ({"required": "a"}, "required"),
        ({"additionalProperties": {}}, "true or false"), ({"minimum": "1"}, "no number"), ({"minItems": -1}, "at least 0"),
        ({"minItems": True}, "at least 0"), ({"items": [{}]}, "no schema object"),
        ({"properties": {str(n): {} for n in range(501)}}, "too large"),
        (json.loads('{"items": ' * 20 + "{}" + "}" * 20), "too large"),
    ],
)  # fmt: skip
def test_a_schema_that_is_not_taken_is_told_why(schema: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_form(schema)


def test_a_name_is_asked_for_once_however_often_it_is_required() -> None:
    assert read_form({"required": ["a", "b", "a"] * 1_000}).required == ("a", "b")


def test_only_so_many_values_are_looked_at() -> None:
    form = read_form({"items": {"type": "array", "items": {"type": "integer"}}})
    assert fits(form, [[1]] * MOST_VALUES + ["not looked at"])
    assert not fits(form, [[1], "looked at"])
