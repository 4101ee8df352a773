-- What a database of this version holds: all migrations in order. Written by `python -m config.schema`.

-- -------------------- 0001_accounts_and_queue

-- Accounts, names and the queue. Times are UTC; addresses are ciphertext, and persons keyed 64-bit digests.

-- One row: which installation this database belongs to. key_check proves that a node's master key is the one that
-- wrote the ciphertext and the digests here; a node with another key must not start.
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    key_check bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A worker process, from its start to its end. What a row that is gone had leased goes back to the queue.
CREATE TABLE worker (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenant (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

-- class: 0 campaign, 1 transactional. secret: an argon2id hash.
CREATE TABLE credential (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    username text NOT NULL UNIQUE,
    secret text NOT NULL,
    class smallint NOT NULL CHECK (class IN (0, 1)),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Names are kept for ever: tokens and suppressions refer to them by id, and outlive what they name.
CREATE TABLE list (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

-- The campaign named '' takes what was submitted without one. content_key is sealed by the master key; without it the
-- campaign's messages and recipients can't be read any more.
CREATE TABLE campaign (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    name text NOT NULL,
    content_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

-- private_key: PKCS #8, sealed by the master key. A retired key signs nothing more, but its record may still be needed.
CREATE TABLE dkim_key (
    tenant_id integer NOT NULL REFERENCES tenant (id),
    domain text NOT NULL,
    selector text NOT NULL,
    algorithm text NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
    private_key bytea NOT NULL,
    public_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    PRIMARY KEY (tenant_id, domain, selector)
);

-- The content of a submitted message, once for all of its recipients. lane: the distribution column, id % 16.
-- envelope and content are encrypted with the campaign's key; content is compressed before, so storage must not try again.
CREATE TABLE message (
    lane smallint NOT NULL,
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    class smallint NOT NULL,
    received_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    envelope bytea NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (lane, id)
);
ALTER TABLE message ALTER COLUMN content SET STORAGE EXTERNAL;

-- A recipient that is not final yet. state:
--   0 queued  from submission, a deferral, or a dead worker's lease; claimed when due_at has come
--   1 leased  by worker_id, which alone may change the row; a worker that is gone loses it
--   2 held    while its campaign is paused
-- The final states are rows of "outcome"; the row here is deleted in the same transaction.
CREATE TABLE recipient (
    lane smallint NOT NULL,
    message_id bigint NOT NULL,
    ordinal integer NOT NULL,
    state smallint NOT NULL CHECK (state IN (0, 1, 2)),
    class smallint NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    delay_reported boolean NOT NULL DEFAULT false,
    worker_id integer,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    person bigint NOT NULL,
    address bytea NOT NULL,
    site text,
    last_outcome text,
    PRIMARY KEY (lane, message_id, ordinal)
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 1
);
ALTER TABLE message SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 1
);

-- Serves the claim: one lane's due recipients of a class, oldest first.
CREATE INDEX recipient_due ON recipient (lane, class, due_at) WHERE state = 0;
-- Serves the cancellation of what is queued for a person that is suppressed.
CREATE INDEX recipient_person ON recipient (person);

-- What became of a recipient. state: 1 delivered, 2 bounced, 3 expired, 4 suppressed, 5 cancelled. Append only.
CREATE TABLE outcome (
    message_id bigint NOT NULL,
    ordinal integer NOT NULL,
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    message_class smallint NOT NULL,
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 5),
    attempts smallint NOT NULL,
    person bigint NOT NULL,
    received_at timestamptz NOT NULL,
    at timestamptz NOT NULL,
    site text,
    status text NOT NULL,
    reply_code smallint NOT NULL,
    class text NOT NULL,
    remote_mta text NOT NULL,
    diagnostic text NOT NULL
);
-- Serves the story of one person.
CREATE INDEX outcome_person ON outcome (person);
-- Serves reports over a span of time, and retention.
CREATE INDEX outcome_at ON outcome USING brin (at);

-- -------------------- 0002_suppression

-- The suppression log, what is in force of it, and consents. No address: persons and keys are keyed 64-bit digests.
-- Nothing here refers to lists, campaigns or messages by a foreign key: suppressions outlive them.

-- One row: the newest position of the log. Whoever appends holds this row's lock until the commit, so positions are
-- gapless and their order is the order of commits: a reader that has seen position n can never miss one below it.
CREATE TABLE suppression_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    hash bytea NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 20);
INSERT INTO suppression_head (position, hash, at) VALUES (0, decode(repeat('00', 32), 'hex'), 'epoch');

-- The log. hash = SHA-256 of the previous hash and of all other columns (suppression/entry.py has the encoding).
-- action: 1 suppress, 2 lift by consent, 3 lift by the operator, 4 signed head.
-- scope: 1 everything, 2 tenant, 3 list, 4 group of tenants. kind: 1 unsubscribe, 2 complaint, 3 hard bounce, 4 manual,
-- 5 legal. key: the scope key; effect: what is stopped for this key after the entry: 0 nothing, 1 campaigns, 2 all mail.
-- cancelled: how many queued recipients the same commit cancelled.
CREATE TABLE suppression_log (
    position bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    action smallint NOT NULL CHECK (action BETWEEN 1 AND 4),
    scope smallint NOT NULL CHECK (scope BETWEEN 0 AND 4),
    kind smallint NOT NULL CHECK (kind BETWEEN 0 AND 5),
    effect smallint NOT NULL CHECK (effect BETWEEN 0 AND 2),
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    cancelled integer NOT NULL,
    message_id bigint NOT NULL,
    person bigint NOT NULL,
    key bigint NOT NULL,
    channel text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL
);
-- Serves the story of one person, and the preference page.
CREATE INDEX suppression_log_person ON suppression_log (person);
-- Serves the question when the head was last signed.
CREATE INDEX suppression_log_signed ON suppression_log (position) WHERE action = 4;

CREATE FUNCTION suppression_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the suppression log is append-only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON suppression_log
    FOR EACH ROW EXECUTE FUNCTION suppression_log_is_append_only();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON suppression_log
    FOR EACH STATEMENT EXECUTE FUNCTION suppression_log_is_append_only();

-- What is in force: one row a key and kind, from the entry that suppressed until the entry that lifts. position: the
-- entry of the log that put it in force. effect: what this kind alone stops.
CREATE TABLE suppression (
    key bigint NOT NULL,
    kind smallint NOT NULL,
    effect smallint NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (key, kind)
);

-- Consents, as recorded. One that is newer than an unsubscribe of its scope lifts it (log action 2, which names the id).
-- at: when the person consented; recorded_at: when it was written down here. evidence: an optional reference.
CREATE TABLE consent (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person bigint NOT NULL,
    scope smallint NOT NULL CHECK (scope BETWEEN 1 AND 4),
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    basis text NOT NULL,
    source text NOT NULL,
    evidence text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL
);
-- Serves the question whether a person consented to a tenant's list.
CREATE INDEX consent_person ON consent (person, tenant_id, list_id);

-- How far an import of a file has come: a restart goes on behind what is committed. source: SHA-256 of what is imported
-- and how. offset_bytes: the file is done up to here.
CREATE TABLE suppression_import (
    source bytea PRIMARY KEY,
    offset_bytes bigint NOT NULL,
    read bigint NOT NULL,
    added bigint NOT NULL,
    refused bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Answers given to authenticated calls that carried an idempotency key: the same key gets the same answer again.
CREATE TABLE suppression_request (
    tenant_id integer NOT NULL,
    idempotency_key text NOT NULL,
    request_sha256 bytea NOT NULL,
    answer text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key)
);

-- -------------------- 0003_bounce_counts

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

-- -------------------- 0004_events

-- What became of every recipient, as one stream of events; webhooks that follow it; tallies for reports and usage.

-- One row: what is added to a transaction's number to make an event's position. Numbers start over in a server that a
-- dump is restored into; `ahead` is raised then, so that positions go on growing (mta/events.py notices by system_id).
CREATE TABLE event_era (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    ahead bigint NOT NULL,
    system_id bigint NOT NULL
);
INSERT INTO event_era (ahead, system_id) SELECT 0, system_identifier FROM pg_control_system();

-- The position of what this transaction writes. A recipient's transactions follow each other, so its events are in order.
CREATE FUNCTION event_position() RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT pg_current_xact_id()::text::bigint + ahead FROM event_era';
-- Every transaction below this position has ended: a reader that stops here never skips an event.
CREATE FUNCTION event_horizon() RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ahead FROM event_era';

CREATE SEQUENCE event_id CACHE 50;

-- Append-only, one partition a UTC day (made and dropped by event_partitions; event_default takes what has none).
-- type: 1 Delivery, 2 Bounce, 3 Expiration, 4 Suppressed, 5 Cancelled: the recipient is final, and its row in "recipient"
-- was deleted by the same statement; 6 Reception, one a message; 7 TransientFailure, one an attempt; 8 OOB; 9 Rejection.
-- Unsubscribe and Feedback are entries of suppression_log and are not written again here.
-- message_class: 0 campaign, 1 transactional. ordinal: null where an event is about no single recipient. person: likewise,
-- and in a Reception, where an index entry would cost more than the rest. address: as in "recipient", readable while the
-- campaign's key exists. recipients, bytes: of a Reception. attempt_ms: how long the last attempt took. due_at: when the
-- next one comes. received_at: when the message was accepted.
CREATE TABLE event (
    position bigint NOT NULL DEFAULT event_position(),
    id bigint NOT NULL DEFAULT nextval('event_id'),
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    due_at timestamptz,
    message_id bigint NOT NULL,
    person bigint,
    ordinal integer,
    tenant_id integer NOT NULL,
    list_id integer NOT NULL,
    campaign_id integer NOT NULL,
    recipients integer,
    bytes integer,
    attempt_ms integer,
    type smallint NOT NULL CHECK (type BETWEEN 1 AND 9),
    message_class smallint NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    reply_code smallint NOT NULL DEFAULT 0,
    site text,
    status text NOT NULL DEFAULT '',
    class text NOT NULL DEFAULT '',
    remote_mta text NOT NULL DEFAULT '',
    diagnostic text NOT NULL DEFAULT '',
    node text NOT NULL DEFAULT '',
    address bytea
) PARTITION BY RANGE (at);
CREATE TABLE event_default PARTITION OF event DEFAULT;
-- Serves a tenant's webhooks: what came since their cursor.
CREATE INDEX event_tenant ON event (tenant_id, position, id);
-- Serves the story of one person, and its erasure.
CREATE INDEX event_person ON event (person) WHERE person IS NOT NULL;
-- Serves the tallies and the stream of all tenants: what came since their cursor.
CREATE INDEX event_stream ON event USING brin (position) WITH (pages_per_range = 32);
-- Serves exports of a span of time.
CREATE INDEX event_at ON event USING brin (at);

-- Final states were a table of their own before. The view keeps its readers, and workers of the version before, going;
-- the lock keeps what they write between the copy and the drop from being dropped.
LOCK TABLE outcome IN EXCLUSIVE MODE;
INSERT INTO event (
    message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type, attempts, person, received_at, at, site,
    status, reply_code, class, remote_mta, diagnostic
)
SELECT message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts, person, received_at, at,
    site, status, reply_code, class, remote_mta, diagnostic
FROM outcome;
DROP TABLE outcome;
CREATE VIEW outcome AS
SELECT message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type AS state, attempts, person, received_at,
    at, site, status, reply_code, class, remote_mta, diagnostic
FROM event
WHERE type <= 5;
CREATE FUNCTION outcome_is_an_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event (
        message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type, attempts, person, received_at, at,
        site, status, reply_code, class, remote_mta, diagnostic
    ) VALUES (
        NEW.message_id, NEW.ordinal, NEW.tenant_id, NEW.list_id, NEW.campaign_id, NEW.message_class, NEW.state,
        NEW.attempts, NEW.person, NEW.received_at, NEW.at, NEW.site, NEW.status, NEW.reply_code, NEW.class,
        NEW.remote_mta, NEW.diagnostic
    );
    RETURN NEW;
END $$;
CREATE TRIGGER is_an_event INSTEAD OF INSERT ON outcome FOR EACH ROW EXECUTE FUNCTION outcome_is_an_event();

-- Make the partitions of the next days and drop those whose last day is before `oldest`; returns the names of the dropped
-- ones. Attaching takes no lock that stops writers of other partitions; where a lock can't be had at once it is left for
-- the next call. A day that has rows in event_default already stays there.
CREATE FUNCTION event_partitions(oldest date, upto date) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    dropped text[] := '{}';
    day date;
    old record;
    name text;
    first timestamptz;
    after timestamptz;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR day IN SELECT generate_series(today, upto, interval '1 day')::date LOOP
        name := 'event_' || to_char(day, 'YYYYMMDD');
        first := day::timestamp AT TIME ZONE 'UTC';
        after := (day + 1)::timestamp AT TIME ZONE 'UTC';
        CONTINUE WHEN to_regclass(name) IS NOT NULL
            OR EXISTS (SELECT FROM event_default e WHERE e.at >= first AND e.at < after);
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, after);
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            CONTINUE;
        END;
    END LOOP;
    FOR old IN
        SELECT inhrelid::regclass::text AS name FROM pg_inherits
        WHERE inhparent = 'event'::regclass AND inhrelid::regclass::text ~ '^event_[0-9]{8}$'
            AND to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') < oldest
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I', old.name);
            dropped := dropped || old.name;
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
    END LOOP;
    DELETE FROM event_default e WHERE e.at < oldest::timestamp AT TIME ZONE 'UTC';
    RETURN dropped;
END $$;

-- Who is told, and how far it has come. (position, event_id): the last event it has taken; log_position: the last entry
-- of suppression_log. leased_by sends until leased_until, and nobody else. secret: sealed by the master key. types: the
-- names of the events wanted; empty: all.
CREATE TABLE webhook (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL REFERENCES tenant (id),
    url text NOT NULL,
    secret bytea NOT NULL,
    types text[] NOT NULL,
    addresses boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    position bigint NOT NULL,
    event_id bigint NOT NULL,
    log_position bigint NOT NULL,
    leased_by text,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    next_at timestamptz NOT NULL DEFAULT '-infinity',
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_error text NOT NULL DEFAULT '',
    last_success_at timestamptz,
    sent bigint NOT NULL DEFAULT 0
);

-- Counts for reports and usage, which outlive the events. Written by one worker at a time, in the transaction that moves
-- the cursor: each event is counted once. type: the event's name. provider: one of a bounded set. channel: of an
-- Unsubscribe. class: of what was refused. hour: UTC.
CREATE TABLE tally (
    tenant_id integer NOT NULL,
    campaign_id integer NOT NULL,
    hour timestamptz NOT NULL,
    type text NOT NULL,
    provider text NOT NULL,
    class text NOT NULL,
    channel text NOT NULL,
    recipients bigint NOT NULL,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (campaign_id, hour, type, provider, class, channel, tenant_id)
);
-- Serves usage by tenant and month.
CREATE INDEX tally_tenant ON tally (tenant_id, hour);

-- How far those have come that follow all tenants' events: the tallies, and the file of a node.
CREATE TABLE event_cursor (
    name text PRIMARY KEY,
    position bigint NOT NULL,
    event_id bigint NOT NULL,
    log_position bigint NOT NULL
);
INSERT INTO event_cursor (name, position, event_id, log_position) VALUES ('tally', 0, 0, 0);

-- -------------------- 0005_orders

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

-- -------------------- 0006_trace

-- Serves the trace of one message: ids grow with time, so that its events lie in few ranges of the table; a handful of
-- outliers in a range, from deferrals, does not widen it. Costs next to nothing when events are written.
CREATE INDEX event_message ON event USING brin (message_id int8_minmax_multi_ops) WITH (pages_per_range = 32);

-- -------------------- 0007_groups_and_consent

-- Groups of tenants that share one policy, and tenants whose campaign mail needs a recorded consent.

CREATE TABLE tenant_group (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Which tenants are in a group: the entries of the log that say so (action 5), by tenant. For ever: what was said to a group
-- binds whoever joins it, and must not end because a tenant leaves. position: of the entry.
CREATE TABLE group_member (
    tenant_id integer PRIMARY KEY,
    group_id integer NOT NULL,
    position bigint NOT NULL
);

-- Action 5: tenant_id joins the group list_id. In entries of scope 4 list_id is the group's id, and tenant_id the tenant
-- through which it came. NOT VALID: what is there satisfies the narrower rule, and must not be read under the lock.
ALTER TABLE suppression_log DROP CONSTRAINT suppression_log_action_check;
ALTER TABLE suppression_log
    ADD CONSTRAINT suppression_log_action_check CHECK (action BETWEEN 1 AND 5) NOT VALID;

-- Campaign mail of such a tenant goes only to persons of whom a consent is recorded.
ALTER TABLE tenant ADD COLUMN consent_required boolean NOT NULL DEFAULT false;

-- -------------------- 0008_replies

-- Answers to campaign mail: where a tenant wants those that are no unsubscribe, and who was asked what was meant.

-- Sealed by the master key; with it, campaign mail without a Reply-To of its own gets one that leads here.
ALTER TABLE tenant ADD COLUMN reply_address bytea;

-- Who was last asked when: at most once a day. Rows that are older than that are deleted by the next question.
CREATE TABLE reply_question (
    person bigint PRIMARY KEY,
    asked_at timestamptz NOT NULL
);
-- Serves that deletion.
CREATE INDEX reply_question_asked ON reply_question (asked_at);

-- -------------------- 0009_lists_stay

-- A list that was deleted and comes again with its next mail would have another id, by which no unsubscribe binds it. So that
-- nothing can part them, a list stays, under its id and its name; a tenant stays by its lists.
CREATE FUNCTION list_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a list stays: its unsubscribes are known by its id';
END $$;
CREATE TRIGGER stays BEFORE DELETE OR UPDATE OF id, tenant_id, name ON list
    FOR EACH ROW EXECUTE FUNCTION list_stays();
CREATE TRIGGER stays_truncate BEFORE TRUNCATE ON list
    FOR EACH STATEMENT EXECUTE FUNCTION list_stays();

-- -------------------- 0010_keyed_requests

-- Idempotency keys were kept as apps chose them, and an app may well choose an address; so was a plain digest of each request,
-- from which an address can be guessed. Both are keyed digests from now on. What is repeated over this change is done again.
DELETE FROM suppression_request;

-- -------------------- 0011_orders_in_parts

-- An order has two parts, a state and a schedule, and each keeps who gave it, when and why: one of them given anew said that
-- it was the other too, and moved the time up to which a cancel reaches. cancelled_at: when it was cancelled before it
-- was resumed or paused; what was accepted until then stays cancelled.
ALTER TABLE standing_order
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN scheduled_at timestamptz,
    ADD COLUMN scheduler text NOT NULL DEFAULT '',
    ADD COLUMN schedule_reason text NOT NULL DEFAULT '';
UPDATE standing_order
SET scheduled_at = at, scheduler = actor, schedule_reason = reason
WHERE not_before IS NOT NULL OR send_window <> '';
