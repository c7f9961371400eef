-- The demo database publisher: invented companies with daily prices and filings. Every value follows from its row's
-- number, so counts and sums are the same on every machine. About 170,000 rows in a few seconds, PostgreSQL 15 to 18.
CREATE SCHEMA demo;

CREATE TABLE demo.sectors (
    sector_id  int PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    parent_id  int REFERENCES demo.sectors
);
INSERT INTO demo.sectors
SELECT n, names.list[n], CASE WHEN n > 4 THEN 1 + n % 4 END
  FROM (SELECT ARRAY['Materials', 'Machines', 'Services', 'Knowledge', 'Steel', 'Timber', 'Robots', 'Engines', 'Freight',
                     'Repair', 'Schools', 'Software', 'Glass', 'Pumps', 'Insurance', 'Archives'] AS list) names,
       generate_series(1, 16) n;

CREATE TABLE demo.companies (
    company_id  int PRIMARY KEY,
    ticker      text NOT NULL UNIQUE,
    name        text NOT NULL,
    country     char(2) NOT NULL,
    sector_id   int NOT NULL REFERENCES demo.sectors,
    founded     date,
    employees   int NOT NULL,
    tags        text[] NOT NULL,
    profile     jsonb NOT NULL
);
INSERT INTO demo.companies
SELECT n,
       chr(65 + n % 26) || chr(65 + n / 26 % 26) || lpad((n % 100)::text, 2, '0'),
       (ARRAY['Amber', 'Basalt', 'Cedar', 'Dune', 'Ember', 'Fjord', 'Grove', 'Harbor', 'Iris', 'Juniper'])[1 + n % 10]
           || ' ' || (ARRAY['Works', 'Group', 'Industries', 'Partners', 'Systems', 'Trading', 'Energy'])[1 + n / 10 % 7]
           || ' ' || n,
       (ARRAY['US', 'DE', 'JP', 'US', 'BR', 'IN', 'FR', 'US', 'KE', 'CA', 'GB'])[1 + n % 11],
       1 + (n * n + n) % 16,
       CASE WHEN n % 12 <> 0 THEN date '1948-03-01' + (n * 53) % 27000 END,
       5 + (n::bigint * n * 17 + n * 101) % 120000,
       ARRAY['index' || n % 4, CASE WHEN n % 5 = 0 THEN 'dividend' ELSE 'growth' END, 'region' || n % 3],
       jsonb_build_object(
           'hq', jsonb_build_object('city', 'City ' || n % 50, 'zip', 20000 + n),
           'officers', jsonb_build_array('Officer ' || n % 300, 'Officer ' || (n * 7) % 300),
           'listed', n % 6 <> 0,
           'esg', round((n * 31 % 1000) / 100.0, 2))
  FROM generate_series(1, 1200) n;

CREATE TABLE demo.filings (
    filing_id   bigint PRIMARY KEY,
    company_id  int NOT NULL REFERENCES demo.companies,
    form        text NOT NULL,
    filed_at    timestamptz NOT NULL,
    period      daterange NOT NULL,
    revenue     numeric(18,2),
    net_income  numeric(18,2),
    body        text NOT NULL,
    meta        jsonb NOT NULL
);
INSERT INTO demo.filings
SELECT n,
       1 + (n * 29) % 1200,
       (ARRAY['annual', 'quarterly', 'quarterly', 'quarterly', 'event', 'event', 'prospectus'])[1 + n % 7],
       timestamptz '2014-02-03 08:15:00+00' + (n * 11) % 3900 * interval '1 day' + n % 600 * interval '1 minute',
       daterange(date '2013-11-01' + (n * 11) % 3900, date '2014-01-31' + (n * 11) % 3900),
       CASE WHEN n % 13 <> 0 THEN round(((n::bigint * 48271) % 70000000)::numeric / 9, 2) END,
       round((((n::bigint * 69621) % 30000000) - 9000000)::numeric / 13, 2),
       'Report ' || n || ': ' ||
           (ARRAY['orders grew in every region', 'margins fell on freight costs', 'cash flow was steady',
                  'a warehouse was closed', 'a new plant opened'])[1 + n % 5] ||
           (ARRAY['; guidance is unchanged.', '; guidance was raised.', '; guidance was withdrawn.'])[1 + n % 3],
       jsonb_build_object('pages', 3 + n % 140, 'amended', n % 19 = 0, 'items', jsonb_build_array(n % 9, n % 4))
  FROM generate_series(1, 30000) n;

CREATE TABLE demo.prices (
    company_id  int NOT NULL REFERENCES demo.companies,
    day         date NOT NULL,
    open        numeric(12,4) NOT NULL,
    close       numeric(12,4) NOT NULL,
    volume      bigint NOT NULL,
    PRIMARY KEY (company_id, day)
);
INSERT INTO demo.prices
SELECT c, d, 15 + c % 240 + ((c * 13 + n * 5) % 300) / 16.0, 15 + c % 240 + ((c * 19 + n * 3) % 300) / 16.0,
       500 + (c::bigint * 104659 + n * 7907) % 4000000
  FROM generate_series(1, 200) c,
       LATERAL (SELECT days.d::date AS d, row_number() OVER (ORDER BY days.d) AS n
                  FROM generate_series(date '2022-01-03', date '2024-10-31', interval '1 day') AS days (d)
                 WHERE extract(isodow FROM days.d) < 6) trading
 WHERE (c * 3 + n) % 40 <> 0;

CREATE TABLE demo."Ratings 2024" (
    "Company ID"  int PRIMARY KEY REFERENCES demo.companies,
    "Score"       numeric(4,2) NOT NULL,
    "select"      text NOT NULL
);
INSERT INTO demo."Ratings 2024"
SELECT n, round((n * 43 % 1000) / 100.0, 2), (ARRAY['buy', 'hold', 'sell'])[1 + n % 3]
  FROM generate_series(1, 1200, 2) n;

CREATE VIEW demo.latest_price AS
    SELECT DISTINCT ON (company_id) company_id, day, close FROM demo.prices ORDER BY company_id, day DESC;
CREATE MATERIALIZED VIEW demo.monthly_volume AS
    SELECT company_id, date_trunc('month', day)::date AS month, sum(volume) AS volume
      FROM demo.prices GROUP BY 1, 2;

CREATE INDEX ON demo.filings (company_id, filed_at DESC);
CREATE INDEX ON demo.filings USING gin (to_tsvector('english', body));
CREATE INDEX ON demo.companies USING gin (tags);
CREATE INDEX ON demo.prices (day);
ANALYZE;
