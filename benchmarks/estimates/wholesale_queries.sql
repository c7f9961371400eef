-- The 22 patterns of TPC-H's decision-support queries on wholesale.sql, in our words and as far as they are sold (views
-- became CTEs). Lines with --: are six sets of constants for the places {0}, {1}, ... above them.

-- 1 pricing summary
SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice * (1 - l_discount)), avg(l_tax), count(*)
  FROM lineitem WHERE l_shipdate <= date '1998-12-01' - interval '{0} days'
 GROUP BY l_returnflag, l_linestatus ORDER BY 1, 2
--: 60
--: 72
--: 84
--: 96
--: 108
--: 120

-- 2 cheapest supplier
SELECT s_acctbal, s_name, n_name, p_partkey FROM part, supplier, partsupp, nation, region
 WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size = {0} AND p_type LIKE '%{1}'
   AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = '{2}'
   AND ps_supplycost = (SELECT min(i.ps_supplycost) FROM partsupp i, supplier s, nation n, region r
                         WHERE part.p_partkey = i.ps_partkey AND s.s_suppkey = i.ps_suppkey
                           AND s.s_nationkey = n.n_nationkey AND n.n_regionkey = r.r_regionkey
                           AND r.r_name = '{2}')
 ORDER BY s_acctbal DESC, n_name, s_name LIMIT 100
--: 7 | BRASS | EUROPE
--: 15 | TIN | ASIA
--: 23 | STEEL | AMERICA
--: 31 | NICKEL | AFRICA
--: 39 | COPPER | MIDDLE EAST
--: 47 | BRASS | EUROPE

-- 3 unshipped orders
SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate
  FROM customer JOIN orders ON c_custkey = o_custkey JOIN lineitem ON l_orderkey = o_orderkey
 WHERE c_mktsegment = '{0}' AND o_orderdate < date '{1}' AND l_shipdate > date '{1}'
 GROUP BY l_orderkey, o_orderdate ORDER BY revenue DESC, o_orderdate
--: BUILDING | 1993-01-15
--: MACHINERY | 1994-02-15
--: HOUSEHOLD | 1995-03-15
--: AUTOMOBILE | 1996-04-15
--: FURNITURE | 1993-05-15
--: BUILDING | 1994-06-15

-- 4 order priorities
SELECT o_orderpriority, count(*) FROM orders
 WHERE o_orderdate >= date '{0}' AND o_orderdate < date '{0}' + interval '3 months'
   AND EXISTS (SELECT FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
 GROUP BY o_orderpriority ORDER BY 1
--: 1993-01-01
--: 1994-02-01
--: 1995-03-01
--: 1996-04-01
--: 1997-05-01
--: 1993-06-01

-- 5 local suppliers
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) FROM customer, orders, lineitem, supplier, nation, region
 WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
   AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = '{0}'
   AND o_orderdate >= date '{1}' AND o_orderdate < date '{1}' + interval '1 year'
 GROUP BY n_name ORDER BY 2 DESC
--: EUROPE | 1992-01-01
--: ASIA | 1993-01-01
--: AMERICA | 1994-01-01
--: AFRICA | 1995-01-01
--: MIDDLE EAST | 1996-01-01
--: EUROPE | 1997-01-01

-- 6 forecast of revenue
SELECT sum(l_extendedprice * l_discount) FROM lineitem
 WHERE l_shipdate >= date '{0}' AND l_shipdate < date '{0}' + interval '1 year'
   AND l_discount BETWEEN 0.0{1} AND 0.0{2} AND l_quantity < {3}
--: 1993-01-01 | 2 | 4 | 24
--: 1994-01-01 | 3 | 5 | 25
--: 1995-01-01 | 4 | 6 | 24
--: 1996-01-01 | 5 | 7 | 25
--: 1993-01-01 | 6 | 8 | 24
--: 1994-01-01 | 7 | 9 | 25

-- 7 volume between nations
SELECT supp, cust, year, sum(volume) FROM (
    SELECT a.n_name AS supp, b.n_name AS cust, extract(year FROM l_shipdate) AS year,
           l_extendedprice * (1 - l_discount) AS volume
      FROM supplier, lineitem, orders, customer, nation a, nation b
     WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey
       AND s_nationkey = a.n_nationkey AND c_nationkey = b.n_nationkey
       AND ((a.n_name = '{0}' AND b.n_name = '{1}') OR (a.n_name = '{1}' AND b.n_name = '{0}'))
       AND l_shipdate BETWEEN date '1995-01-01' AND date '1996-12-31') AS shipping
 GROUP BY supp, cust, year ORDER BY 1, 2, 3
--: NATION 01 | NATION 13
--: NATION 02 | NATION 14
--: NATION 03 | NATION 15
--: NATION 04 | NATION 16
--: NATION 05 | NATION 17
--: NATION 06 | NATION 18

-- 8 share of a market
SELECT year, sum(CASE WHEN nation = '{0}' THEN volume ELSE 0 END) / sum(volume) FROM (
    SELECT extract(year FROM o_orderdate) AS year, l_extendedprice * (1 - l_discount) AS volume, b.n_name AS nation
      FROM part, supplier, lineitem, orders, customer, nation a, nation b, region
     WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey
       AND c_nationkey = a.n_nationkey AND a.n_regionkey = r_regionkey AND r_name = '{1}'
       AND s_nationkey = b.n_nationkey AND o_orderdate BETWEEN date '1995-01-01' AND date '1996-12-31'
       AND p_type = '{2}') AS sales
 GROUP BY year ORDER BY year
--: NATION 01 | EUROPE | ECONOMY ANODIZED BRASS
--: NATION 02 | ASIA | ECONOMY ANODIZED TIN
--: NATION 03 | AMERICA | ECONOMY ANODIZED STEEL
--: NATION 04 | AFRICA | ECONOMY ANODIZED NICKEL
--: NATION 05 | MIDDLE EAST | ECONOMY ANODIZED COPPER
--: NATION 06 | EUROPE | ECONOMY ANODIZED BRASS

-- 9 profit by nation and year
SELECT nation, year, sum(amount) FROM (
    SELECT n_name AS nation, extract(year FROM o_orderdate) AS year,
           l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity AS amount
      FROM part, supplier, lineitem, partsupp, orders, nation
     WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey AND p_partkey = l_partkey
       AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey AND p_name LIKE '%{0}%') AS profit
 GROUP BY nation, year ORDER BY nation, year DESC
--: green
--: navy
--: forest
--: blue
--: coral
--: plum

-- 10 returned items
SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name
  FROM customer, orders, lineitem, nation
 WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= date '{0}'
   AND o_orderdate < date '{0}' + interval '3 months' AND l_returnflag = 'R' AND c_nationkey = n_nationkey
 GROUP BY c_custkey, c_name, c_acctbal, n_name ORDER BY revenue DESC
--: 1993-01-01
--: 1994-02-01
--: 1993-03-01
--: 1994-04-01
--: 1993-05-01
--: 1994-06-01

-- 11 important stock
SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value FROM partsupp, supplier, nation
 WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = '{0}' GROUP BY ps_partkey
HAVING sum(ps_supplycost * ps_availqty) > (
    SELECT sum(ps_supplycost * ps_availqty) * {1} FROM partsupp, supplier, nation
     WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = '{0}')
 ORDER BY value DESC
--: NATION 02 | 0.001
--: NATION 03 | 0.002
--: NATION 04 | 0.003
--: NATION 05 | 0.001
--: NATION 06 | 0.002
--: NATION 07 | 0.003

-- 12 modes of shipping
SELECT l_shipmode, sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 1 ELSE 0 END), count(*)
  FROM orders, lineitem
 WHERE o_orderkey = l_orderkey AND l_shipmode IN ('{0}', '{1}') AND l_commitdate < l_receiptdate
   AND l_shipdate < l_commitdate AND l_receiptdate >= date '{2}' AND l_receiptdate < date '{2}' + interval '1 year'
 GROUP BY l_shipmode ORDER BY l_shipmode
--: MAIL | SHIP | 1993-01-01
--: AIR | RAIL | 1994-01-01
--: TRUCK | FOB | 1995-01-01
--: REG AIR | AIR | 1996-01-01
--: SHIP | FOB | 1993-01-01
--: RAIL | MAIL | 1994-01-01

-- 13 orders per customer
SELECT n, count(*) FROM (
    SELECT c_custkey, count(o_orderkey) AS n FROM customer LEFT JOIN orders
        ON c_custkey = o_custkey AND o_comment NOT LIKE '%{0}%requests%'
     GROUP BY c_custkey) AS counted
 GROUP BY n ORDER BY 2 DESC, n DESC
--: special
--: packing
--: nothing
--: unusual
--: express
--: pending

-- 14 effect of promotions
SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
       / sum(l_extendedprice * (1 - l_discount)) FROM lineitem, part
 WHERE l_partkey = p_partkey AND l_shipdate >= date '{0}' AND l_shipdate < date '{0}' + interval '1 month'
--: 1993-01-01
--: 1994-02-01
--: 1995-03-01
--: 1996-04-01
--: 1997-05-01
--: 1993-06-01

-- 15 best supplier
WITH revenue AS (SELECT l_suppkey AS supplier_no, sum(l_extendedprice * (1 - l_discount)) AS total FROM lineitem
                  WHERE l_shipdate >= date '{0}' AND l_shipdate < date '{0}' + interval '3 months'
                  GROUP BY l_suppkey)
SELECT s_suppkey, s_name, total FROM supplier, revenue
 WHERE s_suppkey = supplier_no AND total = (SELECT max(total) FROM revenue) ORDER BY s_suppkey
--: 1993-01-01
--: 1994-02-01
--: 1995-03-01
--: 1996-04-01
--: 1997-05-01
--: 1993-06-01

-- 16 suppliers of parts
SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS suppliers FROM partsupp, part
 WHERE p_partkey = ps_partkey AND p_brand <> 'Brand {0}' AND p_type NOT LIKE '{1}%'
   AND p_size IN ({2}, {3}, {4}, {5})
   AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%')
 GROUP BY p_brand, p_type, p_size ORDER BY suppliers DESC, p_brand, p_type, p_size
--: 11 | MEDIUM | 3 | 14 | 23 | 45
--: 22 | SMALL | 4 | 15 | 24 | 44
--: 33 | PROMO | 5 | 16 | 25 | 43
--: 44 | LARGE | 6 | 17 | 26 | 42
--: 55 | ECONOMY | 7 | 18 | 27 | 41
--: 11 | STANDARD | 8 | 19 | 28 | 40

-- 17 small orders
SELECT sum(l_extendedprice) / 7.0 FROM lineitem, part
 WHERE p_partkey = l_partkey AND p_brand = 'Brand {0}' AND p_container = '{1}'
   AND l_quantity < (SELECT 0.2 * avg(i.l_quantity) FROM lineitem i WHERE i.l_partkey = p_partkey)
--: 11 | MED BOX
--: 22 | LG CASE
--: 33 | WRAP BAG
--: 44 | JUMBO JAR
--: 55 | SM PKG
--: 11 | MED DRUM

-- 18 large orders
SELECT c_name, c_custkey, o_orderkey, o_orderdate, sum(l_quantity) FROM customer, orders, lineitem
 WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > {0})
   AND c_custkey = o_custkey AND o_orderkey = l_orderkey
 GROUP BY c_name, c_custkey, o_orderkey, o_orderdate ORDER BY o_orderdate
--: 260
--: 266
--: 272
--: 278
--: 284
--: 290

-- 19 discounted revenue
SELECT sum(l_extendedprice * (1 - l_discount)) FROM lineitem, part
 WHERE p_partkey = l_partkey AND l_shipmode IN ('AIR', 'REG AIR') AND l_shipinstruct = 'DELIVER IN PERSON'
   AND ((p_brand = 'Brand {0}' AND p_container IN ('SM CASE', 'SM BOX') AND l_quantity BETWEEN {1} AND {1} + 10)
     OR (p_brand = 'Brand {2}' AND p_container IN ('MED BAG', 'MED BOX') AND l_quantity BETWEEN {1} AND {1} + 20))
--: 11 | 1 | 12
--: 22 | 2 | 23
--: 33 | 3 | 34
--: 44 | 4 | 45
--: 55 | 5 | 12
--: 11 | 6 | 23

-- 20 suppliers to promote
SELECT s_name, s_suppkey FROM supplier, nation
 WHERE s_suppkey IN (SELECT ps_suppkey FROM partsupp
        WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE '{0}%')
          AND ps_availqty > (SELECT 0.5 * sum(l_quantity) FROM lineitem
                              WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey
                                AND l_shipdate >= date '{1}' AND l_shipdate < date '{1}' + interval '1 year'))
   AND s_nationkey = n_nationkey AND n_name = '{2}' ORDER BY s_name
--: green | 1993-01-01 | NATION 01
--: navy | 1994-01-01 | NATION 02
--: forest | 1995-01-01 | NATION 03
--: blue | 1996-01-01 | NATION 04
--: coral | 1993-01-01 | NATION 05
--: plum | 1994-01-01 | NATION 06

-- 21 suppliers who kept orders waiting
SELECT s_name, count(*) AS waited FROM supplier, lineitem a, orders, nation
 WHERE s_suppkey = a.l_suppkey AND o_orderkey = a.l_orderkey AND o_orderstatus = 'F'
   AND a.l_receiptdate > a.l_commitdate
   AND EXISTS (SELECT FROM lineitem b WHERE b.l_orderkey = a.l_orderkey AND b.l_suppkey <> a.l_suppkey)
   AND NOT EXISTS (SELECT FROM lineitem c WHERE c.l_orderkey = a.l_orderkey AND c.l_suppkey <> a.l_suppkey
                      AND c.l_receiptdate > c.l_commitdate)
   AND s_nationkey = n_nationkey AND n_name = '{0}'
 GROUP BY s_name ORDER BY waited DESC, s_name
--: NATION 01
--: NATION 02
--: NATION 03
--: NATION 04
--: NATION 05
--: NATION 06

-- 22 customers to win back
SELECT code, count(*), sum(c_acctbal) FROM (
    SELECT substring(c_phone FROM 1 FOR 2) AS code, c_acctbal FROM customer
     WHERE substring(c_phone FROM 1 FOR 2) IN ('{0}', '{1}', '{2}')
       AND c_acctbal > (SELECT avg(c_acctbal) FROM customer WHERE c_acctbal > 0)
       AND NOT EXISTS (SELECT FROM orders WHERE o_custkey = c_custkey)) AS idle
 GROUP BY code ORDER BY code
--: 13 | 20 | 27
--: 14 | 21 | 28
--: 15 | 22 | 29
--: 16 | 23 | 30
--: 17 | 24 | 31
--: 18 | 25 | 32
