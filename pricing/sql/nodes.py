"""Which parts of sqlglot's tree may occur in a query, by class and by argument. Everything else is refused."""

from __future__ import annotations

from functools import cache

import sqlglot
from sqlglot import exp

from pricing.sql.functions import FUNCTIONS, words

STRUCTURE: tuple[type[exp.Expr], ...] = (
    exp.Select, exp.Union, exp.Intersect, exp.Except, exp.Subquery, exp.Values, exp.With, exp.CTE, exp.From, exp.Join,
    exp.Lateral, exp.Unnest, exp.Table, exp.TableAlias, exp.Where, exp.Group, exp.GroupingSets, exp.Cube, exp.Rollup,
    exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Fetch, exp.LimitOptions, exp.Distinct, exp.Window,
    exp.WindowSpec, exp.WithinGroup, exp.Filter, exp.Alias, exp.Column, exp.Identifier, exp.Star,
)  # fmt: skip
VALUE: tuple[type[exp.Expr], ...] = (
    exp.Literal, exp.Boolean, exp.Null, exp.Parameter, exp.Paren, exp.Tuple, exp.Array, exp.Bracket, exp.Slice,
    exp.Interval, exp.Var, exp.DataType, exp.DataTypeParam, exp.Cast, exp.Case, exp.If, exp.Exists, exp.Any, exp.All,
    exp.IntervalSpan, exp.RawString, exp.ByteString,
    exp.JSONPath, exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript,
    exp.Extract, exp.Trim, exp.Substring, exp.Overlay, exp.StrPosition, exp.AtTimeZone, exp.Collate,
    exp.CurrentDate, exp.CurrentTimestamp, exp.Localtimestamp,
)  # fmt: skip
OPERATORS: tuple[type[exp.Expr], ...] = (
    exp.And, exp.Or, exp.Not, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Pow, exp.DPipe,
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Between, exp.In,
    exp.Like, exp.ILike, exp.SimilarTo, exp.Escape, exp.RegexpLike, exp.RegexpILike, exp.RegexpFullMatch,
    exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseNot, exp.BitwiseLeftShift, exp.BitwiseRightShift,
    exp.JSONExtract, exp.JSONExtractScalar, exp.JSONBExtract, exp.JSONBExtractScalar, exp.JSONBContains,
    exp.ArrayContainsAll, exp.ArrayContainedBy, exp.ArrayContains, exp.ArrayOverlaps, exp.MatchAgainst,
    exp.JSONBContainsTopKey, exp.JSONBContainsAnyTopKeys, exp.JSONBContainsAllTopKeys, exp.Distance,
    exp.Adjacent, exp.ExtendsLeft, exp.ExtendsRight,
)  # fmt: skip
SELECT_PARTS = words("with_ from_ expressions distinct joins laterals where group having windows order limit offset")
TYPES = words(
    """
    bool boolean smallint int bigint decimal numeric float double real text varchar char bpchar date time timetz
    timestamp timestamptz timestampltz interval uuid json jsonb bytea varbinary bit inet cidr array int4range int8range
    numrange tsrange tstzrange daterange name tsquery tsvector macaddr
    """
)


@cache
def allowed() -> frozenset[type[exp.Expr]]:
    """Return every class that may occur: the parts above, and what sqlglot makes of each listed function."""
    classes: set[type[exp.Expr]] = set(STRUCTURE) | set(VALUE) | set(OPERATORS)
    for name in FUNCTIONS:
        for arguments in ("", "a", "a, b", "a, b, c", "a, b, c, d"):
            try:
                tree = sqlglot.parse_one(f"SELECT {name}({arguments})", read="postgres")
            except sqlglot.ParseError:
                continue
            call = tree.expressions[0]
            if isinstance(call, exp.Func):
                classes.add(type(call))
    return frozenset(classes)
