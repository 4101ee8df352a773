-- What operators have ordered about campaigns, lists, tenants and sites; and the queue's summary, from which commands and
-- metrics are answered without counting its rows each time.

-- One row: the number of the newest change. Processes compare it with what they know (mta/order_watch.py).
CREATE TABLE order_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO order_head (position) VALUES (0);

-- The order in force for a target, one row each. reach: 1 campaign, 2 list, 3 tenant (target is the id), 4 site.
-- state: 0 running, 1 paused until "until" or for good, 2 cancelled. not_before, send_window: when mail may leave at all.
CREATE TABLE standing_order (
    reach smallint NOT NULL CHECK (reach BETWEEN 1 AND 4),
    target integer NOT NULL,
    site text NOT NULL,
    state smallint NOT NULL CHECK (state BETWEEN 0 AND 2),
    reason text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    until timestamptz,
    not_before timestamptz,
    send_window text NOT NULL DEFAULT '',
    PRIMARY KEY (reach, target, site)
);

-- What operators did, for those who ask later: orders, and looks at addresses. Append only. No address.
CREATE TABLE operator_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    reach smallint NOT NULL,
    target integer NOT NULL,
    site text NOT NULL,
    reason text NOT NULL,
    details text NOT NULL
);

-- Both at once: whoever holds one and waits for the other would meet a worker that does the same the other way round.
LOCK TABLE message, recipient IN SHARE MODE;

-- Serves orders about a campaign: its messages, lane by lane.
CREATE INDEX message_campaign ON message (campaign_id, lane, id);
-- Serves the expiry of what is held, and its release.
CREATE INDEX recipient_held ON recipient (lane, expires_at) WHERE state = 2;

-- The queue counted, as of queue_summary_head.at; written by whichever node's turn it is. Lost in a crash of the database,
-- and written again seconds later. state: as in "recipient". oldest: when the oldest of them was accepted; next_attempt
-- and last_attempt: the due times of those that are queued.
CREATE UNLOGGED TABLE queue_summary (
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    state smallint NOT NULL,
    class smallint NOT NULL,
    site text NOT NULL,
    recipients bigint NOT NULL,
    oldest timestamptz NOT NULL,
    next_attempt timestamptz,
    last_attempt timestamptz
);
-- One row. seconds: how long the last count took, which decides when the next one may come.
CREATE TABLE queue_summary_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at timestamptz NOT NULL,
    seconds real NOT NULL
);
INSERT INTO queue_summary_head (at, seconds) VALUES ('epoch', 0);
