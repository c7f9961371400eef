"""Expressions that a query may select, one a line: every function of the list, every operator, and forms of constants."""

from __future__ import annotations

EXPRESSIONS = r"""
abs(-1), ceil(1.2), ceiling(1.2), floor(-1.2), round(1.555, 2), round(2.5), trunc(1.29, 1), sign(-2)
sqrt(2), cbrt(8), exp(1), ln(2.0), log(100), log(2, 8), log10(1000), power(2, 10), power(2.0, 0.5), mod(7, 3), div(7, 2)
gcd(12, 18), lcm(4, 6), pi(), degrees(1), radians(180), width_bucket(5, 0, 10, 4), scale(1.50), min_scale(1.50), trim_scale(1.50)
sin(1), cos(1), tan(1), cot(1), asin(1), acos(1), atan(1), atan2(1, 2), sinh(1), cosh(1), tanh(1)
lower(name), upper(name), initcap(name), length(name), char_length(name), character_length(name), octet_length(name), bit_length(name)
btrim(name), ltrim(name, 'A'), rtrim(name, '1'), trim(name), trim(leading 'A' from name), trim(both from name), left(name, 2), right(name, 2)
substr(name, 2), substr(name, 2, 3), substring(name, 2), substring(name from 2 for 3), substring(name from '[a-z]+'), substring(name similar 'A#"%#"r%' escape '#')
replace(name, 'a', 'b'), reverse(name), split_part(name, ' ', 1), starts_with(name, 'A'), strpos(name, 'e'), position('e' in name)
overlay(name placing 'X' from 2), overlay(name placing 'X' from 2 for 3), overlay(name, 'X', 2), translate(name, 'abc', 'xyz')
concat(name, 1, NULL), concat_ws(', ', name, ticker), concat_ws(', ', VARIADIC tags), ascii(name), chr(65), md5(name)
sha256('a'::bytea), encode('a'::bytea, 'hex'), to_hex(255), repeat('ab', 3), lpad(ticker, 10, '*'), rpad(ticker, 10), format('%s-%I', name, ticker)
quote_literal(name), quote_ident(name), quote_nullable(NULL)
regexp_replace(name, '[a-z]+', 'x'), regexp_match(name, '[a-z]+'), regexp_matches(name, '[a-z]+', 'g'), regexp_substr(name, '[a-z]+')
regexp_count(name, 'a'), regexp_like(name, 'a'), regexp_instr(name, 'a'), regexp_split_to_table(name, ' '), regexp_split_to_array(name, ' ')
string_to_array(name, ' '), string_to_table(name, ' '), array_to_string(tags, ','), array_to_string(tags, ',', '-')
now() = now(), current_date, current_timestamp, current_time IS NULL, localtime IS NULL, localtimestamp, current_timestamp(0)
date_trunc('month', filed_at), date_trunc('day', filed_at, 'Europe/Berlin'), date_part('year', filed_at), date_part('month', founded), date_bin('15 minutes', filed_at, timestamp '2001-01-01')
extract(year FROM filed_at), extract(epoch FROM interval '1 day'), extract(dow FROM founded), extract('month' FROM filed_at)
age(timestamp '2024-01-01', timestamp '2020-05-05'), to_char(filed_at, 'YYYY-MM'), to_char(revenue, '999.9'), to_date('2024', 'YYYY'), to_timestamp(0), to_number('12', '99')
make_date(2024, 1, 2), make_time(1, 2, 3.5), make_timestamp(2024, 1, 2, 3, 4, 5), make_timestamptz(2024, 1, 2, 3, 4, 5), make_interval(1, 2), make_interval(days => 4)
justify_days('40 days'), justify_hours('30 hours'), justify_interval('1 mon -1 day'), isfinite(filed_at), timezone('UTC', filed_at), filed_at AT TIME ZONE 'UTC'
coalesce(founded, NULL), nullif(country, 'US'), greatest(1, 2.5), least(1, 2), num_nulls(1, NULL), num_nonnulls(1, NULL)
array_length(tags, 1), array_lower(tags, 1), array_upper(tags, 1), array_ndims(tags), array_dims(tags), cardinality(tags)
array_position(tags, 'esg'), array_positions(tags, 'esg'), array_append(tags, 'x'), array_prepend('x', tags), array_cat(tags, tags), array_remove(tags, 'esg'), array_replace(tags, 'esg', 'x')
array_sort(tags), array_reverse(tags), trim_array(ARRAY[1, 2], 1), unnest(ARRAY[1, 2]), generate_subscripts(ARRAY[1, 2], 1), generate_series(1, 3)
lower(period), upper(period), lower_inc(period), upper_inc(period), lower_inf(period), upper_inf(period), isempty(period), range_merge(period, period)
int4range(1, 2), int8range(1, 2), numrange(1, 2, '[]'), tsrange(NULL, now()::timestamp) IS NULL, tstzrange(NULL, NULL), daterange('2024-01-01', NULL)
multirange(period), int4multirange(int4range(1, 2)), int8multirange(), nummultirange(), tsmultirange(), tstzmultirange(), datemultirange(period)
to_json(name), to_jsonb(tags), row_to_json(ROW(1, 'a')), array_to_json(tags), json_build_object('a', 1), jsonb_build_object('a', name), json_build_array(1, 'x'), jsonb_build_array(1)
json_array_length('[1]'), jsonb_array_length('[1]'), json_typeof('1'), jsonb_typeof(profile), json_extract_path('{"a": 1}', 'a'), jsonb_extract_path(profile, 'hq')
json_extract_path_text('{"a": 1}', 'a'), jsonb_extract_path_text(profile, 'hq', 'city'), jsonb_set(profile, '{a}', '1'), jsonb_insert('[1]', '{0}', '2')
jsonb_strip_nulls(profile), json_strip_nulls('{"a": null}'), jsonb_pretty('{"a": 1}'), jsonb_path_exists(profile, '$.hq'), jsonb_path_match(profile, '$.listed == true')
jsonb_path_query(profile, '$.hq'), jsonb_path_query_array(profile, '$.hq'), jsonb_path_query_first(profile, '$.hq'), json_object('{a, 1}'), jsonb_object('{a, 1}')
json_array_elements('[1, 2]'), jsonb_array_elements('[1, 2]'), json_array_elements_text('["a"]'), jsonb_array_elements_text('["a"]')
json_each('{"a": 1}'), jsonb_each('{"a": 1}'), json_each_text('{"a": 1}'), jsonb_each_text('{"a": 1}'), json_object_keys('{"a": 1}'), jsonb_object_keys('{"a": 1}')
to_tsvector('english', body), to_tsquery('a & b'), plainto_tsquery('a b'), phraseto_tsquery('a b'), websearch_to_tsquery('a -b')
ts_rank(to_tsvector(body), to_tsquery('cloud')), ts_rank_cd(to_tsvector(body), to_tsquery('cloud')), ts_headline(left(body, 50), to_tsquery('cloud'))
numnode(to_tsquery('a')), querytree(to_tsquery('a')), setweight(to_tsvector('a'), 'B'), strip(to_tsvector('a')), to_tsvector('a b') @@ to_tsquery('a')
host(inet '10.0.0.1/8'), family(inet '::1'), masklen(inet '10.0.0.0/8'), netmask(inet '10.0.0.0/8'), network(inet '10.1.0.0/8'), broadcast(inet '10.0.0.0/8')
abbrev(inet '10.0.0.0/8'), text(inet '10.0.0.1'), inet_same_family('10.0.0.1', '10.0.0.2'), inet '10.0.0.1' << inet '10.0.0.0/8', inet '10.0.0.1' <<= inet '10.0.0.0/8'
point(1, 2), box(point(0, 0), point(1, 1)), circle(point(0, 0), 1), lseg(point(0, 0), point(1, 1)), center(circle(point(0, 0), 1)), diameter(circle(point(0, 0), 1)), radius(circle(point(0, 0), 1))
area(box(point(0, 0), point(1, 1))), polygon(box(point(0, 0), point(1, 1)))::text, path(polygon(box(point(0, 0), point(1, 1))))::text, point(0, 0) <-> point(3, 4)
uuid_extract_timestamp('0e37df36-f698-11e6-8dd4-cb9ced3df976'), uuid_extract_version('0e37df36-f698-11e6-8dd4-cb9ced3df976')
normalize('a'), normalize('a', NFD), 'a' IS NFC NORMALIZED, (1, 2) = (1, 2), ROW(1, 'a'), ROW(1), (1, 'a') IS NOT NULL
count(*), count(name), count(DISTINCT country), sum(employees), avg(employees), min(name), max(founded)
bool_and(true), bool_or(false), every(true), bit_and(1), bit_or(2), bit_xor(3), any_value(country), mode() WITHIN GROUP (ORDER BY country)
stddev(employees), stddev_pop(employees), stddev_samp(employees), variance(employees), var_pop(employees), var_samp(employees)
corr(employees, company_id), covar_pop(employees, company_id), covar_samp(employees, company_id), regr_avgx(1, 2), regr_avgy(1, 2), regr_count(1, 2)
regr_intercept(employees, company_id), regr_r2(employees, company_id), regr_slope(employees, company_id), regr_sxx(1, 2), regr_sxy(1, 2), regr_syy(1, 2)
percentile_cont(0.5) WITHIN GROUP (ORDER BY employees), percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY employees)
string_agg(ticker, ',' ORDER BY ticker), array_agg(DISTINCT ticker), json_agg(ticker ORDER BY ticker), jsonb_agg(ticker ORDER BY ticker), json_object_agg(ticker, name ORDER BY filing_id)
jsonb_object_agg(ticker, name), range_agg(period), range_intersect_agg(period), sum(employees) FILTER (WHERE country = 'US')
row_number() OVER (ORDER BY company_id), rank() OVER w, dense_rank() OVER w, percent_rank() OVER w, cume_dist() OVER w FROM (SELECT 1) x (company_id) WINDOW w AS (ORDER BY company_id)
ntile(2) OVER (ORDER BY filing_id), lag(form) OVER (ORDER BY filing_id), lead(form, 2, 'x') OVER (ORDER BY filing_id), first_value(form) OVER (ORDER BY filing_id), last_value(form) OVER (ORDER BY filing_id), nth_value(form, 2) OVER (ORDER BY filing_id)
sum(revenue) OVER (PARTITION BY form ORDER BY filing_id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW)
1 + 2, 3 - 1, 2 * 3, 7 / 2, 7 / 2.0, 7 % 3, 2 ^ 3, |/ 4.0, ||/ 8.0, @ -5, 5 & 3, 5 | 3, 5 # 3, ~ 5, 1 << 3, 8 >> 1, -1, + 1, - (-2)
name || ticker, name = ticker, name <> ticker, 1 != 2, 1 < 2, 1 > 2, 1 <= 2, 1 >= 2, name LIKE 'A%', name NOT LIKE 'A%', name ILIKE 'a%', name NOT ILIKE 'a%', name ~ 'A', name ~* 'a', name !~ 'A', name !~* 'a', name ^@ 'A'
name LIKE 'A#%' ESCAPE '#', name SIMILAR TO 'A%', name NOT SIMILAR TO 'A#%' ESCAPE '#'
profile -> 'hq', profile ->> 'hq', profile #> '{hq,city}', profile #>> '{hq,city}', profile #- '{hq}', profile - 'hq', profile || '{"a": 1}', profile ? 'hq', profile ?| '{hq}', profile ?& '{hq}', profile @> '{}', '{}' <@ profile, profile @? '$.hq', profile @@ '$.listed == true'
period && period, period -|- period, period << period, period &< period, period &> period, period * period, period + period, period @> date '2020-01-01'
1 BETWEEN 0 AND 2, 1 NOT BETWEEN 0 AND 2, 1 BETWEEN SYMMETRIC 2 AND 0, 1 IN (1, 2), 1 NOT IN (1, 2), 1 = ANY (ARRAY[1]), 1 <> ALL (ARRAY[1]), 1 = SOME (ARRAY[1]), 1 IN (SELECT 1), 1 > ALL (SELECT 0), (1, 2) IN (SELECT 1, 2)
true AND NOT false OR NULL, founded IS NULL, founded IS NOT NULL, founded ISNULL, founded NOTNULL, true IS TRUE, true IS NOT UNKNOWN, 1 IS DISTINCT FROM 2, 1 IS NOT DISTINCT FROM NULL
CASE WHEN employees > 5 THEN 'a' ELSE name END, CASE country WHEN 'US' THEN 1 END, CASE WHEN true THEN country ELSE country END
employees::float, employees::float8 / 3, employees::real, employees::numeric(12, 3), employees::text, employees::bigint, CAST(employees AS smallint), '5'::int, 'x'::varchar(3), 'x'::char(3), '10'::bit(4), 'x'::name, employees::double precision
int '5', date '2024-01-01', timestamp '2024-01-01 10:00', timestamptz '2024-01-01 10:00+02', time '10:00', interval '1 day', interval '1 day 12:00:00', interval '1' day, interval '1-2' year to month, interval(0) '1.5 seconds', bool 't', jsonb '{"a": [1, 2.50]}', uuid '0e37df36-f698-11e6-8dd4-cb9ced3df976', money IS NULL FROM (SELECT 1) AS x (money)
1, 1.5, .5, 1e10, 1e-3, 10000000000, 99999999999999999999, 0x1F, 0b11, 0o17, 1_000_000, 'a', E'a\n\\', $$a$$, $x$a'b$x$, B'101', X'1F', U&'\0061', N'x', true, NULL
ARRAY[1, 2], ARRAY[[1, 2], [3, 4]], ARRAY[(SELECT 1), (SELECT 2), (SELECT 3)], ARRAY(SELECT 1), ARRAY[]::int[], '{1,2}'::int[], (ARRAY[1, 2])[1], (ARRAY[1, 2, 3])[2:], (ARRAY[1, 2, 3])[:2], tags[1], tags[1:2], ('{"a": {"b": 1}}'::jsonb)['a']['b']
(SELECT 1), (SELECT max(employees) FROM companies), EXISTS (SELECT 1), (SELECT name), (SELECT 1 AS other)
(date '2024-01-01', date '2024-02-01') OVERLAPS (date '2024-01-15', date '2024-03-01'), (time '10:00', interval '1 hour') OVERLAPS (time '10:30', interval '1 hour')
name AS "select", 1 AS "A b", 2 AS été, 3 "x""y", name COLLATE "C", 'a' < 'b' COLLATE "C", 1 OPERATOR(pg_catalog.+) 2, 1 = OPERATOR(pg_catalog.-) 1
json_to_record.a FROM json_to_record('{"a": 1}') AS json_to_record (a int)
jsonb_to_record.a FROM jsonb_to_record('{"a": 1}') AS jsonb_to_record (a int)
json_to_recordset.a FROM json_to_recordset('[{"a": 1}]') AS json_to_recordset (a int)
jsonb_to_recordset.a FROM jsonb_to_recordset('[{"a": 1}]') AS jsonb_to_recordset (a int)
""".strip().splitlines()
