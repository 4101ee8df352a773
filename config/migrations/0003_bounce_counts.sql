-- Bounces that are counted: a disabled or full mailbox suppresses only when it happens again and again.

-- One row for each message that came back. A later success clears the counts without touching them: only what is newer
-- than the last delivery that did not come back is counted.
CREATE TABLE bounce_count (
    person bigint NOT NULL,
    tenant_id integer NOT NULL,
    message_id bigint NOT NULL,
    at timestamptz NOT NULL,
    class text NOT NULL,
    PRIMARY KEY (person, tenant_id, message_id)
);
