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
