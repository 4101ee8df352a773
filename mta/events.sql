-- The statements of mta/events.py.

-- name: of_tenant
-- A tenant's events behind a cursor and below a horizon.
SELECT e.position, e.id, e.type, e.at, e.received_at, e.due_at, e.message_id, e.person, e.ordinal, e.tenant_id,
    e.list_id, e.campaign_id, e.recipients, e.bytes, e.attempt_ms, e.attempts, e.message_class, e.reply_code, e.site,
    e.status, e.class, e.remote_mta, e.diagnostic, e.node, e.address
FROM event e
WHERE e.tenant_id = $1 AND (e.position, e.id) > ($2, $3) AND e.position < $5
ORDER BY e.position, e.id
LIMIT $4;

-- name: of_all
-- All tenants' events in a window of positions, likewise.
SELECT e.position, e.id, e.type, e.at, e.received_at, e.due_at, e.message_id, e.person, e.ordinal, e.tenant_id,
    e.list_id, e.campaign_id, e.recipients, e.bytes, e.attempt_ms, e.attempts, e.message_class, e.reply_code, e.site,
    e.status, e.class, e.remote_mta, e.diagnostic, e.node, e.address
FROM event e
WHERE e.position BETWEEN $1 AND $5 AND (e.position, e.id) > ($2, $3) AND e.position < $6
ORDER BY e.position, e.id
LIMIT $4;

-- name: of_span
-- Events of a span of time, in pages by time and id, for an export.
SELECT e.position, e.id, e.type, e.at, e.received_at, e.due_at, e.message_id, e.person, e.ordinal, e.tenant_id,
    e.list_id, e.campaign_id, e.recipients, e.bytes, e.attempt_ms, e.attempts, e.message_class, e.reply_code, e.site,
    e.status, e.class, e.remote_mta, e.diagnostic, e.node, e.address
FROM event e
WHERE e.at >= $1 AND e.at < $2 AND (e.at, e.id) > ($3, $4) AND ($5 = 0 OR e.tenant_id = $5)
    AND ($6 = 0 OR e.campaign_id = $6)
ORDER BY e.at, e.id
LIMIT $7;

-- name: withdrawals_of_span
-- Unsubscribes and complaints behind a position of the log and before a time, in pages, likewise.
SELECT l.position, l.at, l.kind, l.tenant_id, CASE WHEN l.scope = 4 THEN 0 ELSE l.list_id END AS list_id, l.campaign_id,
    l.message_id, l.person, l.channel, l.reason, l.hash
FROM suppression_log l
WHERE l.position > $1 AND l.at < $2 AND l.action = 1 AND l.kind IN (1, 2) AND ($3 = 0 OR l.tenant_id = $3)
    AND ($4 = 0 OR l.campaign_id = $4)
ORDER BY l.position
LIMIT $5;

-- name: horizon
-- Where readers stop for now: below it every transaction has ended. From `newest` on none has begun. And the newest
-- entry of the suppression log.
SELECT event_horizon() AS position,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint + (SELECT ahead FROM event_era) AS newest,
    (SELECT position FROM suppression_head) AS log_position;

-- name: next_position
-- The first position behind one that has an event.
SELECT min(position) FROM event WHERE position > $1 AND position < $2;

-- name: position_at
-- Cursors from which all events since a time follow: just before the first one, or the horizon where there is none.
SELECT
    coalesce((SELECT min(e.position) FROM event e WHERE e.at >= $1), event_horizon()) - 1 AS position,
    coalesce(
        (SELECT min(l.position) - 1 FROM suppression_log l WHERE l.at >= $1),
        (SELECT h.position FROM suppression_head h)
    ) AS log_position;

-- name: withdrawals
-- Unsubscribes and complaints behind a position of the log; tenant 0: of all.
SELECT l.position, l.at, l.kind, l.tenant_id, CASE WHEN l.scope = 4 THEN 0 ELSE l.list_id END AS list_id, l.campaign_id,
    l.message_id, l.person, l.channel, l.reason, l.hash
FROM suppression_log l
WHERE l.position > $1 AND l.position <= $2 AND l.action = 1 AND l.kind IN (1, 2) AND ($3 = 0 OR l.tenant_id = $3)
ORDER BY l.position
LIMIT $4;

-- name: addresses
-- The sealed addresses of persons as recipients of messages, for events that came after the recipient was final.
SELECT DISTINCT ON (e.message_id, e.person) e.message_id, e.person, e.ordinal, e.campaign_id, e.address
FROM event e
WHERE e.person = ANY ($1::bigint[]) AND e.message_id = ANY ($2::bigint[]) AND e.tenant_id = $3
    AND e.address IS NOT NULL;

-- name: note
-- Write an event that belongs to no other statement.
INSERT INTO event (
    position, type, at, received_at, message_id, person, tenant_id, list_id, campaign_id, message_class, reply_code,
    site, status, class, remote_mta, diagnostic, recipients, node
)
SELECT (SELECT event_position()), n.type, to_timestamp(n.at), to_timestamp(n.received_at), n.message_id, n.person,
    n.tenant_id, n.list_id, n.campaign_id, n.message_class, n.reply_code, n.site, n.status, n.class, n.remote_mta,
    n.diagnostic, n.recipients, $17
FROM unnest(
    $1::smallint[], $2::float8[], $3::float8[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[],
    $8::integer[], $9::smallint[], $10::smallint[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
    $16::integer[]
) AS n (
    type, at, received_at, message_id, person, tenant_id, list_id, campaign_id, message_class, reply_code, site,
    status, class, remote_mta, diagnostic, recipients
);

-- name: keep
-- Make the partitions of the days to come, and drop what is older than the retention.
SELECT event_partitions(
    ((now() AT TIME ZONE 'UTC') - make_interval(days => $1))::date, ((now() AT TIME ZONE 'UTC') + interval '7 days')::date
);

-- name: wait_little
-- A node that starts waits for no lock of another one.
SET LOCAL lock_timeout = '500ms';

-- name: clear_counts
-- Forget the counted bounces that a delivery has cleared since, where that is older than the retention: what hygiene.sql's
-- `earlier` would conclude from it. In order, so that two nodes never wait for each other.
DELETE FROM bounce_count
WHERE (person, tenant_id, message_id) IN (
    SELECT b.person, b.tenant_id, b.message_id
    FROM bounce_count b
    WHERE EXISTS (
        SELECT FROM outcome o
        WHERE o.person = b.person AND o.tenant_id = b.tenant_id AND o.state = 1 AND o.at >= b.at
            AND o.at < ((now() AT TIME ZONE 'UTC') - make_interval(days => $1))::date::timestamp AT TIME ZONE 'UTC'
            AND NOT EXISTS (
                SELECT FROM bounce_count c
                WHERE c.person = o.person AND c.tenant_id = o.tenant_id AND c.message_id = o.message_id
            )
    )
    ORDER BY b.person, b.tenant_id, b.message_id
    FOR UPDATE OF b
);

-- name: era
-- Whether this is the server that the positions were made by.
SELECT system_id = (SELECT system_identifier FROM pg_control_system()) FROM event_era;

-- name: new_era
-- Go on above everything that was written, in a server whose transactions are numbered anew.
UPDATE event_era
SET system_id = c.system_identifier,
    ahead = greatest(
        (SELECT coalesce(max(e.position), 0) FROM event e),
        (SELECT coalesce(max(w.position), 0) FROM webhook w),
        (SELECT coalesce(max(k.position), 0) FROM event_cursor k)
    ) + 1
FROM pg_control_system() c
WHERE system_id <> c.system_identifier;

-- name: new_ids
-- Go on with ids above all that can have been given out: microseconds since 1970, of which no second has as many events.
-- Whoever starts at the same time waits for the row, so that no id is given back.
SELECT setval('event_id', (extract(epoch FROM clock_timestamp()) * 1e6)::bigint)
FROM (SELECT one FROM event_era FOR UPDATE) AS alone
WHERE pg_sequence_last_value('event_id') IS NULL
    OR pg_sequence_last_value('event_id') < extract(epoch FROM clock_timestamp()) * 1e6;

-- name: cursor
-- How far a follower of all events has come.
SELECT position, event_id, log_position FROM event_cursor WHERE name = $1;

-- name: new_cursor
-- Begin to follow all events.
INSERT INTO event_cursor (name, position, event_id, log_position) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING;

-- name: move
-- Note how far a follower has come.
UPDATE event_cursor SET position = $2, event_id = $3, log_position = $4 WHERE name = $1;
