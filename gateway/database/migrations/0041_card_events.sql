-- Cards. Here: which events of the processor were taken, each once, in the transaction of what followed from it.
CREATE SCHEMA card;

CREATE TABLE card.event (
    id          text PRIMARY KEY,
    type        text NOT NULL,
    object_id   text NOT NULL,
    created_at  timestamptz NOT NULL,               -- as it says itself
    taken_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_taken ON card.event (taken_at);
