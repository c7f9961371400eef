-- Webhooks are claimed by endpoint and organization, wait as long as their receivers ask, and are replayed since a time.
ALTER TABLE webhook.endpoint ADD COLUMN paused_until timestamptz;  -- what Retry-After of its receiver asked for

-- A replay starts the schedule of tries anew: its pauses count from this number of attempts.
ALTER TABLE webhook.delivery ADD COLUMN schedule_from integer NOT NULL DEFAULT 0;

-- A claim skips from endpoint to endpoint along the first index, and reads a few of each endpoint by the second,
-- however much waits for one of them. (First tries have delivery_first.)
CREATE INDEX delivery_waiting ON webhook.delivery (endpoint_id, next_at) WHERE state = 'pending';
CREATE INDEX delivery_again ON webhook.delivery (endpoint_id, next_at, place) WHERE state = 'pending' AND attempts > 0;
CREATE INDEX delivery_leased ON webhook.delivery (endpoint_id, leased_until)
    WHERE state = 'pending' AND leased_until IS NOT NULL;
DROP INDEX webhook.delivery_due;

-- A replay reads an organization's events from a moment on.
CREATE INDEX event_organization ON webhook.event (organization_id, created_at, id);
