-- What the simulator adds to a database before the migrations run. `simulator` stands first on the search path, so an
-- unqualified now() or pg_backend_pid() in the ledger's functions and defaults is one of these.
CREATE SCHEMA simulator;

-- Simulated time. A transaction keeps the moment at which it began, as PostgreSQL's own now() does.
CREATE TABLE simulator.clock (
    real        timestamptz PRIMARY KEY,
    virtual     timestamptz NOT NULL
);
CREATE FUNCTION simulator.set_clock(p_virtual timestamptz) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO simulator.clock VALUES (clock_timestamp(), p_virtual) $$;
CREATE FUNCTION simulator.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT virtual FROM simulator.clock WHERE real <= pg_catalog.now() ORDER BY real DESC LIMIT 1
$$;

-- The ledger spreads sums over rows by backend pid; which backends share a row must not depend on the machine.
CREATE TABLE simulator.backend (
    pid     integer PRIMARY KEY,
    number  integer NOT NULL
);
CREATE FUNCTION simulator.pg_backend_pid() RETURNS integer LANGUAGE sql STABLE AS
    $$ SELECT number FROM simulator.backend WHERE pid = pg_catalog.pg_backend_pid() $$;
