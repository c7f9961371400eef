-- What analysts ask the demo publisher's data, with every shape that planners are known to guess badly. Lines with --: are
-- six sets of constants for the places {0}, {1}, ... above them.

-- filter
SELECT ticker FROM companies WHERE employees > {0}
--: 5000
--: 25000
--: 45000
--: 65000
--: 85000
--: 105000

-- page
SELECT ticker FROM companies ORDER BY ticker LIMIT {0} OFFSET {1}
--: 20 | 0
--: 20 | 40
--: 20 | 80
--: 20 | 120
--: 20 | 160
--: 20 | 200

-- equality
SELECT name FROM companies WHERE country = '{0}'
--: US
--: DE
--: JP
--: BR
--: KE
--: XX

-- classes
SELECT CASE WHEN employees < {0} THEN 'small' WHEN employees < {1} THEN 'mid' ELSE 'big' END AS s, count(*) FROM
  companies GROUP BY s
--: 100 | 1000
--: 101 | 2000
--: 102 | 3000
--: 103 | 4000
--: 104 | 5000
--: 105 | 6000

-- buckets
SELECT width_bucket(close, 0, {0}, 8) AS b, count(*) FROM prices GROUP BY b
--: 200
--: 250
--: 300
--: 350
--: 400
--: 450

-- months of one company
SELECT to_char(day, 'YYYY-MM') AS m, max(close) FROM prices WHERE company_id = {0} GROUP BY 1
--: 3
--: 20
--: 37
--: 54
--: 71
--: 88

-- years
SELECT extract(year FROM filed_at) AS y, count(*) FROM filings WHERE form <> '{0}' GROUP BY y
--: annual
--: event
--: prospectus
--: quarterly
--: none
--: annual

-- never filed
SELECT ticker FROM companies c WHERE NOT EXISTS (SELECT FROM filings f WHERE f.company_id = c.company_id AND f.form
  = '{0}' AND f.filed_at > date '{1}-01-01')
--: annual | 2015
--: event | 2016
--: prospectus | 2017
--: quarterly | 2018
--: annual | 2019
--: event | 2020

-- json contains
SELECT ticker FROM companies WHERE profile @> '{"hq": {"city": "City {0}"}}'
--: 1
--: 8
--: 15
--: 22
--: 29
--: 36

-- json contains a flag
SELECT ticker FROM companies WHERE profile @> '{"listed": {0}}'
--: true
--: false
--: true
--: false
--: true
--: false

-- json field
SELECT profile ->> 'esg' FROM companies WHERE profile -> 'hq' ->> 'city' = 'City {0}'
--: 3
--: 10
--: 17
--: 24
--: 31
--: 38

-- json text over
SELECT ticker FROM companies WHERE (profile ->> 'esg')::numeric > {0}
--: 1
--: 2
--: 3
--: 4
--: 5
--: 6

-- tags
SELECT ticker FROM companies WHERE tags @> ARRAY['index{0}']
--: 0
--: 1
--: 2
--: 3
--: 0
--: 1

-- unnested tags
SELECT c.ticker, t.tag FROM companies c, unnest(c.tags) AS t(tag) WHERE c.employees > {0}
--: 0
--: 10000
--: 20000
--: 30000
--: 40000
--: 50000

-- best three of each
SELECT * FROM (SELECT company_id, day, rank() OVER (PARTITION BY company_id ORDER BY close DESC) AS r FROM prices) x
  WHERE r <= {0}
--: 1
--: 2
--: 3
--: 4
--: 5
--: 6

-- last price
SELECT company_id, close FROM latest_price WHERE close > {0}
--: 50
--: 80
--: 110
--: 140
--: 170
--: 200

-- overlap
SELECT filing_id FROM filings WHERE period && daterange('{0}-01-01', '{0}-03-01')
--: 2014
--: 2015
--: 2016
--: 2017
--: 2018
--: 2019

-- contains a day
SELECT filing_id FROM filings WHERE period @> date '{0}-05-05'
--: 2014
--: 2015
--: 2016
--: 2017
--: 2018
--: 2019

-- full text
SELECT filing_id FROM filings WHERE to_tsvector('english', body) @@ plainto_tsquery('english', '{0}')
--: margins
--: warehouse
--: cash flow
--: guidance raised
--: plant
--: nothing

-- like in the middle
SELECT ticker FROM companies WHERE name ILIKE '%{0}%'
--: energy
--: works
--: amber
--: iris g
--: 7
--: zz

-- fooled: a function
SELECT company_id, day FROM prices WHERE abs(close) = close AND company_id < {0}
--: 5
--: 8
--: 11
--: 14
--: 17
--: 20

-- fooled: a text
SELECT ticker FROM companies WHERE ticker || '' ~ '^[{0}-Z]'
--: A
--: B
--: C
--: D
--: E
--: F

-- correlated
SELECT filing_id FROM filings WHERE form = 'annual' AND filing_id % 7 = 0 AND filing_id < {0}
--: 2000
--: 4000
--: 6000
--: 8000
--: 10000
--: 12000

-- series
SELECT d::date FROM generate_series(date '2024-01-01', date '2024-{0}-01', interval '1 day') AS d
--: 02
--: 04
--: 06
--: 08
--: 10
--: 12

-- limit in a sub-select
SELECT c.name FROM (SELECT company_id FROM filings ORDER BY revenue DESC NULLS LAST LIMIT {0}) f JOIN companies c
  USING (company_id)
--: 5
--: 10
--: 15
--: 20
--: 25
--: 30

-- join
SELECT c.ticker, f.form FROM filings f JOIN companies c USING (company_id) WHERE c.country = '{0}' AND f.form =
  'event'
--: US
--: DE
--: JP
--: BR
--: KE
--: GB

-- having
SELECT company_id, count(*) FROM filings GROUP BY company_id HAVING count(*) > {0}
--: 20
--: 21
--: 22
--: 23
--: 24
--: 25

-- distinct days
SELECT DISTINCT date_trunc('week', day) FROM prices WHERE day >= date '202{0}-01-01'
--: 2
--: 3
--: 4
--: 2
--: 3
--: 4

-- one row
SELECT count(*), avg(close) FROM prices WHERE company_id = {0}
--: 1
--: 2
--: 3
--: 4
--: 5
--: 6

-- tree
WITH RECURSIVE t AS (SELECT sector_id FROM sectors WHERE sector_id = {0} UNION ALL SELECT s.sector_id FROM sectors s
  JOIN t ON s.parent_id = t.sector_id) SELECT * FROM t
--: 1
--: 2
--: 3
--: 4
--: 5
--: 6

-- returns
SELECT p.day FROM prices p JOIN prices q ON q.company_id = p.company_id AND q.day = p.day - {0} WHERE p.company_id =
  7
--: 1
--: 2
--: 3
--: 4
--: 5
--: 6
