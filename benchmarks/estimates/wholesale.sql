-- A wholesaler's books, in the eight tables and with about the distributions of TPC-H at scale 0.05: about 430,000 rows.
-- Every value follows from its row's number through PostgreSQL's own hash, so that runs can be compared.
CREATE SCHEMA wholesale;
SET search_path = wholesale;
CREATE FUNCTION pick(n bigint, salt int, m int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((hashint8extended(n, salt) & 9223372036854775807) % m)::int;

CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name text NOT NULL);
INSERT INTO region SELECT n - 1, (ARRAY['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST'])[n] FROM generate_series(1, 5) n;

CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name text NOT NULL, n_regionkey int NOT NULL REFERENCES region);
INSERT INTO nation
SELECT n - 1, 'NATION ' || lpad(n::text, 2, '0'), (n - 1) % 5 FROM generate_series(1, 25) n;

CREATE TABLE supplier (
    s_suppkey int PRIMARY KEY, s_name text NOT NULL, s_nationkey int NOT NULL REFERENCES nation, s_acctbal numeric(12,2) NOT NULL,
    s_comment text NOT NULL);
INSERT INTO supplier
SELECT n, 'Supplier ' || n, pick(n, 1, 25), pick(n, 2, 1100000) / 100.0 - 1000,
       CASE WHEN n % 200 = 0 THEN 'many Customer Complaints' ELSE 'reliable ' || pick(n, 3, 1000) END
  FROM generate_series(1, 500) n;

CREATE TABLE part (
    p_partkey int PRIMARY KEY, p_name text NOT NULL, p_mfgr text NOT NULL, p_brand text NOT NULL, p_type text NOT NULL,
    p_size int NOT NULL, p_container text NOT NULL, p_retailprice numeric(12,2) NOT NULL);
INSERT INTO part
SELECT n,
       (ARRAY['almond', 'blue', 'coral', 'forest', 'green', 'ivory', 'lime', 'navy', 'olive', 'plum'])[1 + pick(n, 4, 10)]
           || ' ' || (ARRAY['chiffon', 'dark', 'frosted', 'light', 'metallic', 'pale'])[1 + pick(n, 5, 6)] || ' ' || pick(n, 6, 90),
       'Maker ' || 1 + pick(n, 7, 5), 'Brand ' || 1 + pick(n, 7, 5) || 1 + pick(n, 8, 5),
       (ARRAY['STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO'])[1 + pick(n, 9, 6)] || ' '
           || (ARRAY['ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED'])[1 + pick(n, 10, 5)] || ' '
           || (ARRAY['TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'])[1 + pick(n, 11, 5)],
       1 + pick(n, 12, 50),
       (ARRAY['SM', 'LG', 'MED', 'JUMBO', 'WRAP'])[1 + pick(n, 13, 5)] || ' '
           || (ARRAY['CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'])[1 + pick(n, 14, 8)],
       900 + n % 1000 + (n / 10) % 200 / 100.0
  FROM generate_series(1, 10000) n;

CREATE TABLE partsupp (
    ps_partkey int NOT NULL, ps_suppkey int NOT NULL, ps_availqty int NOT NULL,
    ps_supplycost numeric(12,2) NOT NULL);
INSERT INTO partsupp
SELECT p, 1 + (p + s * 125 + p / 500) % 500, 1 + pick(p * 4 + s, 15, 9999), 1 + pick(p * 4 + s, 16, 99900) / 100.0
  FROM generate_series(1, 10000) p, generate_series(0, 3) s;

CREATE TABLE customer (
    c_custkey int PRIMARY KEY, c_name text NOT NULL, c_nationkey int NOT NULL REFERENCES nation, c_phone text NOT NULL,
    c_acctbal numeric(12,2) NOT NULL, c_mktsegment text NOT NULL);
INSERT INTO customer
SELECT n, 'Customer ' || n, pick(n, 17, 25), 10 + pick(n, 17, 25) || '-' || 100 + pick(n, 18, 900) || '-' || 1000 + pick(n, 19, 9000),
       pick(n, 20, 1100000) / 100.0 - 1000,
       (ARRAY['AUTOMOBILE', 'BUILDING', 'FURNITURE', 'HOUSEHOLD', 'MACHINERY'])[1 + pick(n, 21, 5)]
  FROM generate_series(1, 7500) n;

CREATE TABLE orders (
    o_orderkey int NOT NULL, o_custkey int NOT NULL, o_orderstatus text NOT NULL,
    o_totalprice numeric(12,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority text NOT NULL, o_comment text NOT NULL);
-- A third of the customers never order; some order much more than others.
INSERT INTO orders
SELECT n, 1 + 3 * least(pick(n, 22, 2500), pick(n, 23, 2500)) + pick(n, 24, 2),
       CASE WHEN pick(n, 25, 2406) < 1250 THEN 'F' WHEN pick(n, 26, 40) = 0 THEN 'P' ELSE 'O' END,
       900 + pick(n, 27, 40000000) / 100.0, date '1992-01-01' + pick(n, 25, 2406),
       (ARRAY['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'])[1 + pick(n, 28, 5)],
       CASE WHEN pick(n, 29, 80) = 0 THEN 'special packing requests' ELSE 'nothing special ' || pick(n, 30, 500) END
  FROM generate_series(1, 75000) n;

CREATE TABLE lineitem (
    l_orderkey int NOT NULL, l_partkey int NOT NULL, l_suppkey int NOT NULL, l_linenumber int NOT NULL,
    l_quantity numeric(12,2) NOT NULL, l_extendedprice numeric(12,2) NOT NULL, l_discount numeric(12,2) NOT NULL,
    l_tax numeric(12,2) NOT NULL, l_returnflag text NOT NULL, l_linestatus text NOT NULL, l_shipdate date NOT NULL,
    l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct text NOT NULL, l_shipmode text NOT NULL);
INSERT INTO lineitem
SELECT o, part, 1 + (part + pick(k, 32, 4) * 125 + part / 500) % 500, line, quantity, quantity * (900 + part % 1000),
       pick(k, 34, 11) / 100.0, pick(k, 35, 9) / 100.0,
       CASE WHEN shipped + pick(k, 38, 30) > date '1995-06-17' THEN 'N' ELSE (ARRAY['R', 'A'])[1 + pick(k, 36, 2)] END,
       CASE WHEN shipped > date '1995-06-17' THEN 'O' ELSE 'F' END,
       shipped, ordered + 30 + pick(k, 37, 61), shipped + 1 + pick(k, 38, 30),
       (ARRAY['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[1 + pick(k, 39, 4)],
       (ARRAY['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'])[1 + pick(k, 40, 7)]
  FROM (SELECT o, line, o * 8::bigint + line AS k, o_orderdate AS ordered,
               o_orderdate + 1 + pick(o * 8::bigint + line, 41, 121) AS shipped,
               1 + pick(o * 8::bigint + line, 31, 10000) AS part, 1 + pick(o * 8::bigint + line, 33, 50) AS quantity
          FROM orders, LATERAL (SELECT o_orderkey AS o) AS k,
               LATERAL generate_series(1, 1 + pick(o_orderkey, 42, 7)) AS line) AS lines;

-- Keys come after the rows: one check instead of one per row.
ALTER TABLE partsupp ADD PRIMARY KEY (ps_partkey, ps_suppkey), ADD FOREIGN KEY (ps_partkey) REFERENCES part,
    ADD FOREIGN KEY (ps_suppkey) REFERENCES supplier;
ALTER TABLE orders ADD PRIMARY KEY (o_orderkey), ADD FOREIGN KEY (o_custkey) REFERENCES customer;
ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber), ADD FOREIGN KEY (l_orderkey) REFERENCES orders;
CREATE INDEX ON orders (o_custkey);
CREATE INDEX ON orders (o_orderdate);
CREATE INDEX ON lineitem (l_partkey);
CREATE INDEX ON lineitem (l_shipdate);
RESET search_path;
ANALYZE;
