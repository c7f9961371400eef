-- What is known of the books without asking for it: when they were last proven, and how often the jobs that
-- keep them have failed.
CREATE TABLE analytics.proof (
    kind        text PRIMARY KEY CHECK (kind IN ('quick', 'full')),
    sound       boolean,                                -- of the last one; NULL: there was none yet
    broken      text[] NOT NULL DEFAULT '{}',           -- the rules that did not hold
    proven_at   timestamptz,
    taken_until timestamptz NOT NULL DEFAULT now()      -- a worker is at it until then, or until the next one is due
);
-- The first full one waits for a while: it reads everything, and a gateway that begins has other things to do.
INSERT INTO analytics.proof (kind, taken_until) VALUES ('quick', now()), ('full', now() + interval '1 hour');

CREATE TABLE analytics.job (
    name        text PRIMARY KEY,
    failures    bigint NOT NULL DEFAULT 0               -- rounds, on all workers
);
INSERT INTO analytics.job (name) VALUES ('daily_aggregation'), ('quick_proof'), ('full_proof');
