"""Which functions, types and operators of PostgreSQL a query may use. Everything that is not listed is refused.

Chosen by what a function does: it computes from its arguments alone, cannot run text as SQL, read files, settings,
catalogs or other sessions, wait, lock, notify, write, or make a large value from a small constant unseen (those that
can are in BOUNDED). Source: PostgreSQL documentation, chapter 9, for 15 to 18.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Return the words of a list that is written as text."""
    return frozenset(text.split())


SCALAR = words(
    """
    abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log log10 power mod div gcd lcm pi degrees radians
    sin cos tan cot asin acos atan atan2 sinh cosh tanh width_bucket scale min_scale trim_scale
    lower upper initcap length char_length character_length octet_length bit_length btrim ltrim rtrim left right
    substr substring replace reverse split_part starts_with strpos position overlay translate concat concat_ws
    ascii chr md5 sha256 encode to_hex regexp_replace regexp_match regexp_substr regexp_count regexp_like regexp_instr
    string_to_array array_to_string repeat lpad rpad format quote_literal quote_ident quote_nullable unaccent similarity
    now date_trunc date_part date_bin extract age to_char to_date
    to_timestamp to_number make_date make_time make_timestamp make_timestamptz make_interval justify_days
    justify_hours justify_interval isfinite timezone
    num_nulls num_nonnulls
    array_length array_lower array_upper array_ndims array_dims array_position array_positions array_append
    array_prepend array_cat array_remove array_replace cardinality array_sort array_reverse trim_array
    lower_inc upper_inc lower_inf upper_inf isempty range_merge int4range int8range numrange tsrange tstzrange daterange
    multirange int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange
    to_json to_jsonb row_to_json array_to_json json_build_object jsonb_build_object json_build_array jsonb_build_array
    json_array_length jsonb_array_length json_typeof jsonb_typeof json_extract_path jsonb_extract_path
    json_extract_path_text jsonb_extract_path_text jsonb_set jsonb_insert jsonb_strip_nulls json_strip_nulls
    jsonb_pretty jsonb_path_exists jsonb_path_match jsonb_path_query_array jsonb_path_query_first
    json_object jsonb_object
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline
    numnode querytree setweight strip
    host family masklen netmask network broadcast abbrev text inet_same_family
    point box circle lseg path polygon area center diameter radius
    uuid_extract_timestamp uuid_extract_version
    """
)
GRAMMAR = words("overlaps like_escape similar_to_escape normalize is_normalized")
"""What the grammar makes of words such as LIKE … ESCAPE."""
AGGREGATE = words(
    """
    count sum avg min max bool_and bool_or every bit_and bit_or bit_xor stddev stddev_pop stddev_samp variance var_pop
    var_samp corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
    regr_sxy regr_syy percentile_cont percentile_disc mode any_value
    string_agg array_agg json_agg jsonb_agg json_object_agg jsonb_object_agg range_agg range_intersect_agg
    """
)
WINDOW = words("row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value")
ROWS = words(
    """
    generate_series generate_subscripts unnest regexp_matches regexp_split_to_table string_to_table
    json_array_elements jsonb_array_elements json_array_elements_text jsonb_array_elements_text json_each jsonb_each
    json_each_text jsonb_each_text json_object_keys jsonb_object_keys jsonb_path_query regexp_split_to_array
    json_to_record jsonb_to_record json_to_recordset jsonb_to_recordset
    """
)
FUNCTIONS = SCALAR | GRAMMAR | AGGREGATE | WINDOW | ROWS

COLLECTING = words(
    """
    string_agg array_agg json_agg jsonb_agg json_object_agg jsonb_object_agg range_agg xmlagg json_arrayagg
    json_objectagg lag lead nth_value
    """
)
"""Functions that carry many input rows in one output row: metered by the rows that enter them (metering.py)."""

BOUNDED = {"repeat": 1, "lpad": 1, "rpad": 1}
"""Functions whose argument at this place is a length: it must be a constant of at most MAX_LENGTH."""
MAX_LENGTH = 10_000
MAX_SERIES = 1_000_000
"""The longest generate_series whose bounds are constants."""

TYPES = words(
    """
    bool int2 int4 int8 numeric float4 float8 text varchar char bpchar date time timetz timestamp timestamptz interval
    uuid json jsonb jsonpath bytea bit varbit inet cidr macaddr macaddr8 name tsquery tsvector
    int4range int8range numrange tsrange tstzrange daterange
    int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange
    """
)
"""Types that a value may be cast to, by PostgreSQL's own names: not those that look into catalogs, such as regclass."""

OPERATORS = words(
    """
    + - * / % ^ |/ ||/ @ & | # ~ << >> || = <> < > <= >= ~~ !~~ ~~* !~~* ~* !~ !~* ^@
    -> ->> #> #>> #- @> <@ ? ?| ?& @? @@ && &< &> -|- <<= >>= <->
    """
)
SAMPLING = words("system bernoulli")
EXTENSIONS = words("unaccent similarity")
"""Functions of extensions, which stand in a schema of the publisher's choice; all others are pg_catalog's."""
