"""Queries by what must become of them: the analysts' that must pass, and attacks that must not."""

from __future__ import annotations

# One statement per line, on the tables of tables.py.
SOLD = r"""
SELECT * FROM companies LIMIT 5
SELECT c.* FROM companies c WHERE c.country = 'US' LIMIT 5
SELECT count(*), avg(employees)::numeric(10,2) FROM companies
SELECT country, count(*) AS n FROM companies GROUP BY country HAVING count(*) > 10 ORDER BY n DESC
SELECT c.name, s.name AS sector FROM companies c JOIN sectors s ON s.sector_id = c.sector_id
SELECT c.name, p.name parent FROM sectors c LEFT JOIN sectors p ON p.sector_id = c.parent_id WHERE p.name IS NOT NULL
SELECT date_trunc('month', filed_at) AS month, count(*) FROM filings GROUP BY 1 ORDER BY 1
SELECT extract(year FROM filed_at) AS y, sum(revenue) FROM filings GROUP BY y ORDER BY y
SELECT ticker FROM companies WHERE name ILIKE '%energy%' AND founded BETWEEN DATE '1960-01-01' AND DATE '1980-12-31'
SELECT ticker, tags FROM companies WHERE tags @> ARRAY['esg']
SELECT ticker FROM companies WHERE 'esg' = ANY(tags) LIMIT 10
SELECT ticker FROM companies WHERE 'esg' <> ALL (tags) AND country <> ALL (ARRAY['US', 'DE']) LIMIT 10
SELECT profile -> 'hq' ->> 'city' AS city, count(*) FROM companies GROUP BY city ORDER BY 2 DESC LIMIT 5
SELECT ticker FROM companies WHERE profile @> '{"listed": true}' LIMIT 10
SELECT ticker, (profile ->> 'esg')::numeric AS esg FROM companies ORDER BY esg DESC NULLS LAST LIMIT 10
SELECT form, percentile_cont(0.5) WITHIN GROUP (ORDER BY revenue) FROM filings GROUP BY form
SELECT company_id, day, close, lag(close) OVER (PARTITION BY company_id ORDER BY day) AS prev FROM prices WHERE company_id = 5
SELECT * FROM (SELECT company_id, day, close, row_number() OVER (PARTITION BY company_id ORDER BY day DESC) AS rn FROM prices) x WHERE rn = 1
SELECT DISTINCT ON (company_id) company_id, form, filed_at FROM filings ORDER BY company_id, filed_at DESC
WITH top AS (SELECT company_id, sum(revenue) r FROM filings GROUP BY 1 ORDER BY 2 DESC LIMIT 10) SELECT c.name, t.r FROM top t JOIN companies c USING (company_id)
WITH RECURSIVE tree AS (SELECT sector_id, name, parent_id, 1 AS depth FROM sectors WHERE parent_id IS NULL UNION ALL SELECT s.sector_id, s.name, s.parent_id, t.depth + 1 FROM sectors s JOIN tree t ON s.parent_id = t.sector_id) SELECT * FROM tree
SELECT ticker FROM companies WHERE company_id IN (SELECT company_id FROM filings WHERE form = '8-K')
SELECT ticker FROM companies c WHERE EXISTS (SELECT 1 FROM filings f WHERE f.company_id = c.company_id AND f.form = 'S-1')
SELECT ticker FROM companies c WHERE NOT EXISTS (SELECT FROM filings f WHERE f.company_id = c.company_id)
SELECT ticker, (SELECT max(day) FROM prices p WHERE p.company_id = c.company_id) AS last_day FROM companies c LIMIT 3
SELECT c.ticker, l.day, l.close FROM companies c, LATERAL (SELECT day, close FROM prices p WHERE p.company_id = c.company_id ORDER BY day DESC LIMIT 2) l LIMIT 10
SELECT c.ticker, t.tag FROM companies c CROSS JOIN LATERAL unnest(c.tags) AS t(tag) LIMIT 5
SELECT c.ticker, e.value FROM companies c, jsonb_array_elements_text(c.profile -> 'officers') AS e(value) LIMIT 5
SELECT c.ticker, e.value FROM companies c, jsonb_array_elements_text(profile -> 'officers') AS e(value) LIMIT 5
SELECT upper(profile -> 'hq' ->> 'city'), jsonb_array_length(profile -> 'officers') FROM companies LIMIT 2
SELECT key, count(*) FROM companies, jsonb_each(profile) GROUP BY key
SELECT CASE WHEN employees < 100 THEN 'small' WHEN employees < 1000 THEN 'mid' ELSE 'big' END AS size, count(*) FROM companies GROUP BY size
SELECT count(*) FILTER (WHERE country = 'US') AS us, count(*) FILTER (WHERE country <> 'US') AS other FROM companies
SELECT country, sector_id, count(*) FROM companies GROUP BY GROUPING SETS ((country), (sector_id), ())
SELECT country, sector_id, count(*), grouping(country) FROM companies GROUP BY ROLLUP (country, sector_id)
SELECT ticker FROM companies UNION SELECT name FROM sectors ORDER BY 1 LIMIT 5
(SELECT ticker FROM companies LIMIT 2) UNION ALL (SELECT name FROM sectors LIMIT 2)
SELECT ticker FROM companies EXCEPT SELECT ticker FROM companies WHERE country = 'US'
VALUES (1, 'a'), (2, 'b')
SELECT * FROM (VALUES (1, 'one'), (2, 'two')) AS v(n, word)
SELECT d::date FROM generate_series(date '2024-01-01', date '2024-01-31', interval '1 day') AS d
SELECT g.n, count(p.day) FROM generate_series(1, 12) AS g(n) LEFT JOIN prices p ON extract(month FROM p.day) = g.n AND p.company_id = 1 GROUP BY g.n
SELECT coalesce(founded::text, 'unknown') FROM companies LIMIT 3
SELECT nullif(country, 'US'), greatest(employees, 10), least(1,2) FROM companies LIMIT 2
SELECT lower(name), upper(ticker), length(name), substring(name from 1 for 4), replace(name, 'Labs', 'L') FROM companies LIMIT 2
SELECT name || ' (' || ticker || ')' AS label FROM companies LIMIT 2
SELECT to_char(filed_at, 'YYYY-MM-DD') FROM filings LIMIT 2
SELECT filing_id FROM filings WHERE filed_at >= now() - interval '3 years' LIMIT 3
SELECT filing_id FROM filings WHERE to_tsvector('english', body) @@ plainto_tsquery('english', 'cloud revenue') LIMIT 3
SELECT filing_id FROM filings WHERE period && daterange('2020-01-01', '2020-06-30') LIMIT 3
SELECT lower(period), upper(period) FROM filings LIMIT 3
SELECT ticker FROM companies WHERE name ~* '^acme' LIMIT 3
SELECT ticker FROM companies WHERE name !~ 'Bank' LIMIT 3
SELECT "Company ID", "Score" FROM "Ratings 2024" r WHERE r."select" IN ('buy', 'hold') ORDER BY "Score" DESC LIMIT 3
SELECT demo.companies.ticker FROM demo.companies LIMIT 1
SELECT stddev_samp(close), corr(open, close), regr_slope(close, open) FROM prices WHERE company_id = 3
SELECT ntile(4) OVER (ORDER BY employees) q, ticker FROM companies LIMIT 10
SELECT sum(volume) OVER w, avg(close) OVER w FROM prices WHERE company_id = 2 WINDOW w AS (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW)
SELECT company_id, max(close) - min(close) AS spread FROM prices GROUP BY company_id ORDER BY spread DESC FETCH FIRST 5 ROWS ONLY
SELECT round(avg(close), 2) FROM prices WHERE day = $1 AND company_id = ANY($2::int[])
SELECT ticker FROM companies WHERE (country, sector_id) IN (('US', 1), ('GB', 2)) LIMIT 3
SELECT a.ticker, b.ticker FROM companies a JOIN companies b ON a.sector_id = b.sector_id AND a.company_id < b.company_id LIMIT 5
SELECT c.ticker FROM companies c LEFT JOIN filings f ON f.company_id = c.company_id WHERE f.filing_id IS NULL
SELECT m.month, sum(m.volume) FROM monthly_volume m GROUP BY m.month ORDER BY m.month
SELECT count(DISTINCT country) FROM companies
SELECT bool_and(employees > 0) FROM companies
SELECT array_length(tags, 1) FROM companies LIMIT 1
SELECT jsonb_build_object('t', ticker, 'c', country) FROM companies LIMIT 3
SELECT width_bucket(close, 0, 400, 8) AS b, count(*) FROM prices GROUP BY b ORDER BY b
SELECT age(founded), date_part('year', founded) FROM companies LIMIT 2
SELECT ticker, employees::float / nullif((SELECT sum(employees) FROM companies), 0) AS share FROM companies LIMIT 3
SELECT x.country, x.n FROM (SELECT country, count(*) n FROM companies GROUP BY country) AS x WHERE x.n > 5
SELECT s.name, count(c.company_id) FROM sectors s LEFT JOIN companies c USING (sector_id) GROUP BY s.sector_id, s.name
SELECT f.form, c.country, count(*) FROM filings f NATURAL JOIN companies c GROUP BY CUBE (f.form, c.country)
SELECT filed_at AT TIME ZONE 'Europe/Berlin' FROM filings LIMIT 1
SELECT ticker FROM companies WHERE founded IS NULL OR founded < '1970-01-01' ORDER BY founded NULLS FIRST, ticker DESC LIMIT 4 OFFSET 2
SELECT p1.day, p1.close / p2.close - 1 AS ret FROM prices p1 JOIN prices p2 ON p2.company_id = p1.company_id AND p2.day = p1.day - 1 WHERE p1.company_id = 7
SELECT lp.close, c.ticker FROM latest_price lp JOIN companies c ON c.company_id = lp.company_id WHERE lp.close > 300
SELECT mode() WITHIN GROUP (ORDER BY country) FROM companies
SELECT sum(CASE WHEN form = '10-K' THEN 1 ELSE 0 END) FROM filings
SELECT ticker, CAST(employees AS bigint) * 1000 AS k FROM companies WHERE employees % 2 = 0 LIMIT 2
SELECT meta #>> '{items,0}', meta ? 'pages' FROM filings LIMIT 2
SELECT current_date - founded AS days FROM companies WHERE founded IS NOT NULL LIMIT 1
SELECT position('a' IN name), trim(both ' ' FROM name), overlay(name placing 'X' from 1 for 1) FROM companies LIMIT 1
SELECT * FROM companies c JOIN sectors s USING (sector_id) LIMIT 1
SELECT t.* FROM (SELECT ticker, country FROM companies) t LIMIT 1
SELECT companies.name FROM companies WHERE companies.country = 'DE' ORDER BY companies.name LIMIT 1
SELECT tags[1], tags[1:2] FROM companies LIMIT 1
SELECT make_date(2024, 1, 1) + interval '1 month'
SELECT ticker FROM companies WHERE name LIKE 'A\_%' ESCAPE '\' LIMIT 1
SELECT ticker, rank() OVER (ORDER BY employees DESC) AS r, sum(employees) OVER () FROM companies ORDER BY r LIMIT 5
SELECT (company_id + 1) * 2 AS x FROM companies WHERE NOT (country = 'US') LIMIT 1
SELECT E'a\nb', 'it''s', $$dollar$$, 1e3, .5, -1
SELECT ticker FROM companies WHERE country IS DISTINCT FROM 'US' LIMIT 1
SELECT u.n, u.ord FROM unnest(ARRAY['a','b']) WITH ORDINALITY AS u(n, ord)
SELECT regexp_replace(name, '\s+', ' ', 'g'), split_part(name, ' ', 1) FROM companies LIMIT 1
SELECT json_array_length(to_json(tags)) FROM companies LIMIT 1
SELECT string_agg(DISTINCT country, ', ' ORDER BY country) FROM companies
SELECT ticker, employees FROM companies ORDER BY employees DESC LIMIT $1
SELECT country AS k, form AS f, count(*) FROM companies JOIN filings USING (company_id) GROUP BY GROUPING SETS ((k, f), ROLLUP (k), ()) ORDER BY k DESC NULLS LAST, (f)
SELECT e.k, e.value FROM companies, jsonb_each(profile) AS e (k) LIMIT 3
SELECT 1 AS c FROM companies c ORDER BY c LIMIT 1
SELECT 0x1F, 1_000, 0b101, 0o17, x'1F', b'101', U&'d\0061t', U&'d!0061t' UESCAPE '!', 1e3::float8 / 3
SELECT interval '1 day 12:00:00', interval '1-2', interval '90' minute, interval '1 12' day to hour
SELECT ARRAY[(SELECT 1), (SELECT 2), (SELECT 3)], (SELECT ARRAY[1, 2])[2]
SELECT date_part(year, date '2024-03-05') FROM (SELECT 'month' AS year) x
SELECT 1 OPERATOR(pg_catalog.+) 2, pg_catalog.lower('A'), "lower"('B'), OPERATOR(pg_catalog.-) 3
SELECT make_interval(days => 3, hours => 1), make_interval(hours := 2)
SELECT (date '2024-01-01', date '2024-02-01') OVERLAPS (date '2024-01-15', interval '1 month')
SELECT profile @? '$.hq.city', profile @@ '$.listed == true' FROM companies ORDER BY company_id LIMIT 3
SELECT * FROM jsonb_to_recordset('[{"a": 1, "b": "x"}, {"a": 2}]') AS x(a int, b text)
SELECT r.a, r.b FROM companies c, jsonb_to_record(c.profile) AS r(a int, b text) WHERE c.company_id = 1
SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY['a', 'b'])) WITH ORDINALITY AS t(n, word, place)
SELECT * FROM ROWS FROM (json_to_recordset('[{"a": 1}]') AS (a int), generate_series(1, 2)) AS t
SELECT count(*) FROM companies TABLESAMPLE BERNOULLI (100) REPEATABLE (1)
TABLE sectors
SELECT now() IS NOT NULL, substr('abc', 2), mod(7, 3), power(2, 3), ceil(1.5), sign(-2.0), char_length('abc')
SELECT (SELECT max(company_id) FROM companies), EXISTS (SELECT 1), CASE WHEN true THEN 1 END, coalesce(1, 2)
SELECT 'a'::varchar, '1'::int4, 2::int8, 'x'::bpchar, nullif(1, 2), greatest(1, 2), ARRAY[1], (1, 2)
SELECT DISTINCT ON (place) country AS place, ticker FROM companies ORDER BY place, ticker
WITH RECURSIVE t AS (SELECT * FROM sectors WHERE parent_id IS NULL UNION ALL SELECT s.* FROM sectors s JOIN t ON s.parent_id = t.sector_id) SELECT t.name FROM t
SELECT j.company_id FROM companies JOIN filings USING (company_id) AS j ORDER BY 1 LIMIT 1
SELECT l.ticker FROM (companies c JOIN sectors s USING (sector_id)) AS l ORDER BY 1 LIMIT 1
SELECT unnest FROM unnest(ARRAY[1, 2])
SELECT tag FROM companies, unnest(tags) AS tag ORDER BY 1 LIMIT 3
SELECT x.n FROM (SELECT * FROM unnest(ARRAY[1, 2]) AS n) AS x
SELECT name NOT SIMILAR TO 'A%', name LIKE 'A#_%' ESCAPE '#', name SIMILAR TO '(A|B)%' FROM companies ORDER BY company_id LIMIT 3
SELECT sum(volume) OVER (ORDER BY day RANGE BETWEEN interval '7 days' PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM prices WHERE company_id = 1 LIMIT 2
SELECT extract(epoch FROM interval '1 hour'), date_part('dow', current_date) IS NOT NULL, localtimestamp(0) IS NOT NULL
SELECT normalize('a'), 'a' IS NORMALIZED, 'a' COLLATE "C" < 'b', N'x', '{1,2}'::int[] @> ARRAY[1], int4multirange('{[1,3)}') @> 2
""".strip().splitlines()

# Refused before anything reaches a database, with the code that the refusal carries.
REFUSED = (
    ("not_sold", "SELECT * FROM companies TABLESAMPLE peek (1)"),
    ("not_sold", "SELECT * FROM companies TABLESAMPLE demo.system (1)"),
    ("not_sold", "SELECT 1 OPERATOR(demo.+) 2"),
    ("too_large", "SELECT generate_series(-2147483648, 2147483647)"),
    ("not_sold", "SELECT 1 OPERATOR(demo.+) ANY (ARRAY[1])"),
    ("not_sold", "SELECT 1 OPERATOR(demo.=) ANY (SELECT 1)"),
    ("not_sold", "SELECT ticker FROM companies ORDER BY ticker USING <"),
    ("not_sold", "SELECT 'a' COLLATE demo.mine"),
    ("unknown_function", "SELECT demo.lower('a')"),
    ("unknown_function", "SELECT COLLATION FOR ('a')"),
    ("unknown_function", 'SELECT lower("pg_sleep"(a => 1)::text)'),
    ("unknown_type", "SELECT * FROM json_to_recordset('[]') AS x(a regclass)"),
    ("unknown_type", "SELECT * FROM json_to_recordset('[]') AS x(a demo.companies)"),
    ("unknown_column", "SELECT 1 FROM unnest(to_tsvector('a')) AS peek WHERE peek.peek IS NULL"),
    ("unknown_column", "SELECT 1 FROM (SELECT 1 AS c) x, companies c JOIN filings f ON (c IS NOT NULL)"),
    ("unknown_column", "SELECT j.peek FROM companies JOIN filings USING (company_id) AS j"),
    ("unknown_column", "SELECT t.peek FROM ROWS FROM (generate_series(1, 3), generate_series(1, 2)) AS t"),
    ("not_sold", "WITH RECURSIVE a AS (SELECT * FROM sectors), sectors AS (SELECT 1 AS x) SELECT * FROM a"),
    ("not_sold", "WITH RECURSIVE prices AS (SELECT * FROM prices) SELECT * FROM prices"),
    ("not_sold", "SELECT JSON_ARRAYAGG(ticker) FROM companies"),
    ("not_sold", "SELECT JSON_OBJECT('a': 1)"),
    ("not_sold", "WITH d AS (DELETE FROM prices RETURNING 1) SELECT 1"),
    (
        "not_sold",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SEARCH DEPTH FIRST BY n SET o SELECT 1",
    ),
    ("syntax", "SELECT E'a' '\\' , pg_sleep(1) --'"),
    ("unknown_function", "SELECT pg_sleep(10)"),
    ("unknown_function", 'SELECT "pg_sleep"(10)'),
    ("unknown_function", "SELECT pg_catalog.pg_sleep(1)"),
    ("not_sold", "SELECT (1).pg_sleep"),
    ("not_sold", "SELECT (0.1::float8).pg_sleep FROM companies"),
    ("unknown_column", "SELECT c.pg_sleep FROM companies c"),
    ("unknown_column", "SELECT c.row_to_json FROM companies c"),
    ("unknown_column", "SELECT companies FROM companies"),
    ("unknown_column", "SELECT c FROM companies c"),
    ("unknown_column", "SELECT row_to_json(c) FROM companies c"),
    ("not_sold", "SELECT (c).ticker FROM companies c"),
    ("whole_row", "SELECT (c.*)::text FROM companies c"),
    ("whole_row", "SELECT c.*::text FROM companies c"),
    ("whole_row", "SELECT count(c.*) FROM companies c"),
    ("whole_row", "SELECT to_jsonb(c.*) FROM companies c"),
    ("unknown_column", "SELECT ctid FROM companies"),
    ("unknown_column", "SELECT c.xmin FROM companies c"),
    ("unknown_type", "SELECT tableoid::regclass FROM companies"),
    ("unknown_type", "SELECT 'companies'::regclass::oid"),
    ("unknown_function", "SELECT to_regclass('companies')"),
    ("unknown_function", "SELECT current_user"),
    ("unknown_function", "SELECT session_user, user"),
    ("unknown_function", "SELECT current_setting('work_mem')"),
    ("unknown_function", "SELECT version()"),
    ("unknown_function", "SELECT inet_server_addr()"),
    ("unknown_function", "SELECT txid_current()"),
    ("unknown_function", "SELECT lo_create(0)"),
    ("unknown_function", "SELECT query_to_xml('select 1',true,false,'')"),
    ("unknown_function", "SELECT ts_stat('select 1')"),
    ("unknown_function", "SELECT * FROM ts_stat('select body from filings')"),
    ("unknown_function", "SELECT dblink('x','y')"),
    ("unknown_function", "SELECT pg_read_file('/etc/passwd')"),
    ("unknown_function", "SELECT * FROM pg_read_file('/etc/passwd')"),
    ("unknown_relation", "SELECT * FROM pg_catalog.pg_class"),
    ("unknown_relation", "SELECT * FROM pg_class"),
    ("unknown_relation", "SELECT * FROM information_schema.tables"),
    ("unknown_relation", "SELECT * FROM postgres.demo.companies"),
    ("unknown_relation", "SELECT * FROM hidden.api_keys"),
    ("unknown_relation", 'SELECT * FROM "Companies"'),
    ("unknown_relation", "SELECT * FROM COMPANIES.companies"),
    ("not_sold", "SELECT * FROM companies FOR UPDATE"),
    ("unknown_relation", "SELECT * FROM companies c JOIN internal_costs i ON true"),
    ("unknown_relation", "SELECT (SELECT max(cost) FROM internal_costs)"),
    ("unknown_relation", "VALUES ((SELECT count(*) FROM internal_costs))"),
    ("unknown_relation", "SELECT * FROM (VALUES ((SELECT note FROM internal_costs LIMIT 1))) v(a)"),
    ("unknown_relation", "SELECT ticker FROM companies WHERE company_id IN (SELECT company_id FROM internal_costs)"),
    ("unknown_relation", "SELECT ticker FROM companies ORDER BY (SELECT 1 FROM internal_costs LIMIT 1)"),
    ("unknown_relation", "SELECT ticker FROM companies LIMIT (SELECT count(*) FROM internal_costs)"),
    (
        "unknown_relation",
        "SELECT ticker FROM companies GROUP BY ticker HAVING count(*) > (SELECT count(*) FROM internal_costs)",
    ),
    ("unknown_relation", "SELECT sum(1) OVER (ORDER BY (SELECT 1 FROM internal_costs)) FROM companies"),
    ("unknown_relation", "SELECT ARRAY(SELECT note FROM internal_costs)"),
    ("unknown_relation", "SELECT x FROM LATERAL (SELECT note x FROM internal_costs) l"),
    ("unknown_relation", "SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM internal_costs)) FROM companies"),
    ("unknown_relation", "WITH a AS (SELECT * FROM internal_costs) SELECT * FROM a"),
    ("unknown_relation", "WITH internal_costs AS (SELECT 1 AS x), b AS (SELECT 1) SELECT * FROM demo.internal_costs"),
    ("not_sold", "WITH x AS (UPDATE companies SET name='x' RETURNING *) SELECT * FROM x"),
    ("not_sold", "WITH x AS (INSERT INTO companies VALUES (1) RETURNING *) SELECT * FROM x"),
    ("syntax", "SELECT * FROM companies WHERE (DELETE FROM companies)"),
    ("not_a_query", "MERGE INTO companies USING filings ON true WHEN MATCHED THEN DELETE"),
    ("not_a_query", "EXPLAIN SELECT 1"),
    ("not_a_query", "EXPLAIN ANALYZE SELECT 1"),
    ("not_a_query", "SHOW all"),
    ("not_a_query", "SET ROLE x"),
    ("not_a_query", "BEGIN"),
    ("not_a_query", "CALL f()"),
    ("not_a_query", "LISTEN x"),
    ("not_a_query", "LOCK TABLE companies"),
    ("not_a_query", "PREPARE x AS SELECT 1"),
    ("not_a_query", "DECLARE c CURSOR FOR SELECT 1"),
    ("not_a_query", "COPY companies TO STDOUT"),
    ("not_a_query", "COPY (SELECT 1) TO STDOUT"),
    ("unknown_relation", "TABLE internal_costs"),
    ("not_sold", "SELECT 1 INTO x"),
    ("unknown_column", 'SELECT u&"\\0041"'),
    ("syntax", "SELECT E'a' 'b\\'' "),
    ("syntax", "SELECT 'a' 'b'"),
    ("unknown_function", "SELECT nextval('s')"),
    ("unknown_function", "SELECT nextval('demo.ticket_seq'::regclass)"),
    ("unknown_function", "SELECT demo.peek(1)"),
    ("unknown_function", "SELECT peek(1)"),
    ("unknown_function", "SELECT peek(1) FROM (VALUES (1)) AS peek(x)"),
    ("unknown_function", "SELECT * FROM peek(1)"),
    ("unknown_function", "SELECT * FROM peek(1) AS (a text)"),
    ("unknown_function", "SELECT * FROM companies, peek(1) AS t(a)"),
    ("unknown_function", "SELECT * FROM ROWS FROM (peek(1), peek(2))"),
    ("unknown_function", "SELECT ticker FROM companies CROSS JOIN LATERAL peek(company_id)"),
    ("unknown_column", "SELECT t.peek FROM (SELECT 1 AS a) t"),
    ("unknown_column", "SELECT t.peek FROM generate_series(1,3) t"),
    ("unknown_column", "SELECT g.pg_sleep FROM generate_series(1,3) g"),
    ("unknown_column", "SELECT v.peek FROM (VALUES (1)) v"),
    ("unknown_column", "SELECT peek FROM (VALUES (1)) v"),
    ("unknown_column", "SELECT x.peek FROM (SELECT company_id FROM companies) AS x"),
    ("unknown_column", "WITH q AS (SELECT 1 a) SELECT q.peek FROM q"),
    ("unknown_function", "WITH q(a) AS (SELECT 1) SELECT peek(q) FROM q"),
    ("unknown_type", "SELECT 1::peek"),
    ("unknown_type", "SELECT '1'::demo.mytype"),
    ("unknown_type", "SELECT 'x'::pg_lsn"),
    ("unknown_type", "SELECT '1'::regrole"),
    ("unknown_type", "SELECT '1'::xml"),
    ("not_sold", "SELECT xmlelement(name foo)"),
    ("syntax", "SELECT XMLTABLE('x')"),
    ("not_sold", "SELECT * FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS b text)"),
    ("not_sold", "SELECT * FROM JSON_TABLE('[]', '$[*]' COLUMNS (a int))"),
    ("unknown_function", "SELECT json_populate_record(null::companies, '{}')"),
    ("too_large", "SELECT repeat('x', 900000000)"),
    ("too_large", "SELECT repeat('x', 9000*90000)"),
    ("too_large", "SELECT repeat('x', company_id * 1000000) FROM companies"),
    ("too_large", "SELECT repeat('x', $1)"),
    ("too_large", "SELECT lpad('x', 900000000, 'y')"),
    ("too_large", "SELECT format('%1000000000s', 'x')"),
    ("too_large", "SELECT format($1, 'x')"),
    ("too_large", "SELECT format('%*s', 1000000000, 'x')"),
    ("unknown_function", "SELECT array_fill(0, ARRAY[100000000])"),
    ("too_large", "SELECT * FROM generate_series(1, 1000000000)"),
    ("too_large", "SELECT * FROM generate_series(-1000000000, 1000000000, 1)"),
    ("syntax", "SELECT 1 WHERE 1 = ?"),
    ("syntax", "SELECT :name"),
    ("syntax", "SELECT %(x)s"),
    ("unknown_column", "SELECT @@version"),
    ("syntax", "SELECT {{ 1 }}"),
    ("syntax", "SELECT {# x #} 1"),
    ("unknown_column", "SELECT 1 # comment"),
    ("syntax", "SELECT `ticker` FROM companies"),
    ("syntax", "SELECT TOP 5 ticker FROM companies"),
    ("syntax", "SELECT ticker FROM companies QUALIFY row_number() OVER () = 1"),
    ("syntax", "SELECT ticker FROM companies LIMIT 5 BY country"),
    ("syntax", "SELECT * EXCEPT (ticker) FROM companies"),
    ("syntax", "SELECT * EXCLUDE (ticker) FROM companies"),
    ("syntax", "SELECT * REPLACE (1 AS ticker) FROM companies"),
    ("syntax", "SELECT ticker FROM companies PIVOT (count(x) FOR y IN (1))"),
    ("syntax", "SELECT ticker FROM companies MATCH_RECOGNIZE (PATTERN (A) DEFINE A AS true)"),
    ("unknown_relation", "SELECT a.b.c.d.e FROM companies"),
    ("syntax", "SELECT companies.*.ticker FROM companies"),
    ("syntax", "SELECT * FROM companies AS OF SYSTEM TIME '1'"),
    ("unknown_function", "SELECT pg_sleep/**/(1)"),
    ("unknown_column", "SELECT pg_sleep -- x"),
    ("syntax", " (1)"),
    ("several_statements", "SELECT 1;; SELECT 2"),
    ("unknown_function", "SELECT ticker FROM companies WHERE current_user = 'x'"),
    ("syntax", "SELECT DATE_ADD(now(), INTERVAL 1 DAY)"),
    ("unknown_function", "SELECT CONVERT(int, '1')"),
    ("syntax", "SELECT TRY_CAST('a' AS int)"),
    ("unknown_column", "SELECT x -> x + 1"),
    ("unknown_function", "SELECT has_table_privilege('x','y')"),
    ("unknown_function", "SELECT obj_description(1)"),
    ("unknown_function", "SELECT pg_typeof(1)"),
    ("unknown_function", "SELECT random()"),
    ("unknown_function", "SELECT setseed(1)"),
    ("unknown_function", "SELECT gen_random_uuid()"),
    ("unknown_function", "SELECT clock_timestamp()"),
    ("unknown_function", "SELECT pg_relation_size('companies')"),
    ("unknown_function", "SELECT ticker FROM companies WHERE ticker = current_catalog"),
    ("syntax", "SELECT ROW(1,2).f1"),
    ("not_sold", "SELECT (ROW(1,2)).f1"),
    ("unknown_column", "SELECT (SELECT c FROM companies c LIMIT 1)"),
    ("unknown_column", "SELECT array_agg(c) FROM companies c"),
    ("unknown_column", "SELECT DISTINCT c FROM companies c"),
    ("unknown_column", "SELECT ticker FROM companies GROUP BY companies"),
    ("unknown_column", "SELECT ticker FROM companies ORDER BY companies"),
    ("unknown_column", "SELECT json_agg(p) FROM prices p"),
    ("unknown_column", "SELECT count(p) FROM prices p"),
    ("ambiguous", "SELECT 1 FROM companies c, filings c"),
    ("unknown_column", "SELECT 1 AS a, a + 1"),
    ("unknown_column", 'SELECT "Ticker" FROM companies'),
    ("unknown_function", "SELECT pg_sleep(company_id) FROM companies AS pg_sleep"),
    ("unknown_function", "SELECT coalesce(pg_sleep(1)::text)"),
    ("unknown_function", "SELECT * FROM companies WHERE pg_sleep(1) IS NULL"),
    ("unknown_function", "SELECT * FROM companies JOIN filings ON pg_sleep(1) IS NULL"),
    ("unknown_function", "SELECT sum(pg_sleep(1)) OVER ()"),
    ("unknown_function", "SELECT CASE WHEN true THEN pg_sleep(1) END"),
    ("unknown_function", "SELECT ARRAY[pg_sleep(1)]"),
    ("unknown_function", "SELECT (ARRAY[1,2])[pg_backend_pid()]"),
    ("unknown_function", "SELECT * FROM unnest(ARRAY[pg_sleep(1)])"),
    ("unknown_function", "SELECT binary_upgrade_create_empty_extension()"),
    ("unknown_column", "SELECT count(secret -> 'x') FROM companies"),
    ("unknown_function", "SELECT count(pg_sleep(1) -> 'x') FROM companies"),
    # The server gives names, or a meaning, to columns that are not on sale, to whole rows and to functions.
    ("not_sold", "SELECT p.x FROM partial AS p (x)"),
    ("star", "SELECT count(*) FROM partial p NATURAL JOIN partial q"),
    ("unknown_column", "SELECT 1 AS c FROM companies c ORDER BY lower(c::text)"),
    ("unknown_column", "SELECT 1 AS c FROM companies c ORDER BY (c, 1)"),
    ("unknown_column", "SELECT 1 AS c FROM companies c ORDER BY rank() OVER (ORDER BY c)"),
    ("unknown_column", "SELECT 1 AS c FROM companies c GROUP BY upper(c::text)"),
    ("unknown_column", "SELECT peek.peek FROM jsonb_array_elements_text('[1]') AS peek"),
    # Several statements, hidden from a reader who takes one of these for a string, a comment or a name.
    ("several_statements", "SELECT 1; TRUNCATE prices"),
    ("several_statements", "SELECT 'a;b'; ROLLBACK"),
    ("several_statements", "SELECT $q$;$q$; COMMIT"),
    ("several_statements", "SELECT $a$ $b$; $a$; DROP TABLE prices"),
    ("several_statements", "SELECT E'\\\\'; DELETE FROM prices --'"),
    ("several_statements", "SELECT '\\'; DELETE FROM prices --'"),
    ("several_statements", 'SELECT 1 AS "a;b"; SELECT 2'),
    ("several_statements", "SELECT 1 /* x /* y */ z */; SELECT 2"),
    ("several_statements", "SELECT 1 -- a\r; SELECT 2"),
    ("several_statements", "BEGIN; SELECT 1"),
    # Readings that differ: what one takes for a name, another takes for a call, a string or a comment.
    ("unknown_relation", "SELECT 1 AS q$$ FROM pg_roles AS r$$"),
    ("unknown_relation", "SELECT 1 AS a$b$ FROM pg_roles AS c$b$"),
    (
        "unknown_relation",
        "SELECT * FROM (WITH internal_costs AS (SELECT 1) SELECT * FROM internal_costs) a, internal_costs b",
    ),
    ("unknown_relation", "SELECT 1 /* /* */ FROM companies */ FROM pg_roles"),
    ("unknown_relation", "SELECT 1 -- */ FROM companies\n FROM pg_roles"),
    ("unknown_relation", "SELECT 1 FROM pg_catalog . pg_roles"),
    ("unknown_relation", 'SELECT 1 FROM "pg_catalog"."pg_roles"'),
    ("unknown_relation", 'SELECT rolname FROM U&"pg_r\\006fles"'),
    ("not_sold", "SELECT (2).peek"),
    ("unknown_column", "SELECT f.jsonb_agg FROM filings f"),
    ("unknown_function", "SELECT pg_sleep/**/(1)"),
    ("unknown_function", "SELECT pg_sleep\n(1)"),
    ("unknown_function", "SELECT PG_SLEEP(1)"),
    ("unknown_function", 'SELECT "pg_catalog" . "pg_sleep" (1)'),
)
