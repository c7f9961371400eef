-- How much each publisher is used: counts for the store's pages, rolled up from the ledger. The ledger stays the truth
-- and carries no index for this, because its inserts are the hot path; what is not rolled up yet is counted live.
CREATE TABLE catalog.usage_mark (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    upto    uuid NOT NULL                           -- transfers up to this cause are in the tables below
);
INSERT INTO catalog.usage_mark (upto) VALUES ('00000000-0000-0000-0000-000000000000');

CREATE TABLE catalog.usage_total (
    publisher_id    uuid PRIMARY KEY REFERENCES catalog.publisher,
    calls           bigint NOT NULL,
    agents          bigint NOT NULL
);
CREATE TABLE catalog.usage_agent (
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    wallet_id       bigint NOT NULL,
    calls           bigint NOT NULL,
    PRIMARY KEY (publisher_id, wallet_id)
);

-- Paid calls after a cause, one row per publisher and wallet. Calls whose money went back do not count.
CREATE FUNCTION catalog.usage_between(p_after uuid, p_upto uuid)
RETURNS TABLE (publisher_id uuid, wallet_id bigint, calls bigint) LANGUAGE sql STABLE AS $$
    SELECT a.publisher_id, t.wallet_id, count(*)
      FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
     WHERE t.cause_id > p_after AND t.cause_id <= p_upto AND t.kind IN ('charge', 'capture') AND t.leg = 0
       AND a.purpose = 'earnings' AND t.wallet_id IS NOT NULL
       AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.cause_id = t.cause_id AND r.kind = 'refund')
     GROUP BY a.publisher_id, t.wallet_id
$$;

-- Move the mark up to p_horizon, by at most p_limit transfers. Open holds stop it: their captures bear old causes. One
-- worker at a time, the others leave it alone. Returns whether the horizon was reached.
CREATE FUNCTION catalog.roll_up_usage(p_horizon uuid, p_limit integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    mark uuid;
    horizon uuid := p_horizon;
    first_open uuid;
    stop uuid;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('catalog.roll_up_usage')) THEN
        RETURN true;
    END IF;
    SELECT upto INTO STRICT mark FROM catalog.usage_mark;
    SELECT h.exchange_id INTO first_open FROM ledger.hold h WHERE h.status = 'pending' ORDER BY h.exchange_id LIMIT 1;
    IF first_open IS NOT NULL AND first_open <= horizon THEN
        SELECT t.cause_id INTO horizon FROM ledger.transfer t WHERE t.cause_id < first_open
         ORDER BY t.cause_id DESC LIMIT 1;
    END IF;
    IF horizon IS NULL OR horizon <= mark THEN
        RETURN true;
    END IF;
    SELECT t.cause_id INTO stop FROM ledger.transfer t WHERE t.cause_id > mark AND t.cause_id <= horizon
     ORDER BY t.cause_id OFFSET p_limit LIMIT 1;
    WITH fresh AS (
        SELECT * FROM catalog.usage_between(mark, coalesce(stop, horizon))
    ), agents AS (
        INSERT INTO catalog.usage_agent AS u (publisher_id, wallet_id, calls)
        SELECT f.publisher_id, f.wallet_id, f.calls FROM fresh f
        ON CONFLICT (publisher_id, wallet_id) DO UPDATE SET calls = u.calls + EXCLUDED.calls
        RETURNING u.publisher_id, (u.xmax = 0) AS is_new
    ), counted AS (
        SELECT f.publisher_id, sum(f.calls) AS calls FROM fresh f GROUP BY f.publisher_id
    )
    INSERT INTO catalog.usage_total AS u (publisher_id, calls, agents)
    SELECT c.publisher_id, c.calls, (SELECT count(*) FILTER (WHERE a.is_new) FROM agents a
                                      WHERE a.publisher_id = c.publisher_id)
      FROM counted c
    ON CONFLICT (publisher_id) DO UPDATE SET calls = u.calls + EXCLUDED.calls, agents = u.agents + EXCLUDED.agents;
    UPDATE catalog.usage_mark SET upto = coalesce(stop, horizon);
    RETURN stop IS NULL;
END $$;
