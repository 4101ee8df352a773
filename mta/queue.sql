-- name: insert
-- Store a batch of messages of one lane with their recipients. A recipient with a worker is born leased by it, so that
-- its first attempt needs neither claim nor read; queued, where that worker was buried before (see claim).
WITH alive AS MATERIALIZED (
    SELECT id FROM worker WHERE id = ANY ($14::integer[]) FOR KEY SHARE
), stored AS (
    INSERT INTO message (lane, id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content)
    SELECT $1, m.id, m.tenant_id, m.list_id, m.campaign_id, m.class,
        to_timestamp(m.received_at), to_timestamp(m.expires_at), m.envelope, m.content
    FROM unnest(
        $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::smallint[], $7::float8[], $8::float8[],
        $9::bytea[], $10::bytea[]
    ) AS m (id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content)
), received AS (
    INSERT INTO event (
        position, type, message_id, tenant_id, list_id, campaign_id, message_class, received_at, at, recipients, bytes,
        ordinal, address, node
    )
    SELECT (SELECT event_position()), 6, m.id, m.tenant_id, m.list_id, m.campaign_id, m.class,
        to_timestamp(m.received_at), to_timestamp(m.received_at), m.recipients, m.bytes, m.ordinal, m.address, $24
    FROM unnest(
        $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::smallint[], $7::float8[], $19::boolean[],
        $20::integer[], $21::integer[], $22::integer[], $23::bytea[]
    ) AS m (id, tenant_id, list_id, campaign_id, class, received_at, submitted, recipients, bytes, ordinal, address)
    WHERE m.submitted
)
INSERT INTO recipient (lane, message_id, ordinal, state, class, worker_id, due_at, expires_at, person, address, site)
SELECT $1, r.message_id, r.ordinal, CASE WHEN r.state = 1 AND alive.id IS NULL THEN 0 ELSE r.state END, r.class,
    alive.id, to_timestamp(r.due_at), to_timestamp(r.expires_at), r.person, r.address, r.site
FROM unnest(
    $11::bigint[], $12::integer[], $13::smallint[], $14::integer[], $15::float8[], $16::float8[], $17::bigint[],
    $18::bytea[], $25::smallint[], $26::text[]
) AS r (message_id, ordinal, class, worker_id, due_at, expires_at, person, address, state, site)
LEFT JOIN alive ON alive.id = r.worker_id;

-- name: insert_withheld
-- The events of recipients that were suppressed before their message was taken, in the transaction that stores it.
INSERT INTO event (
    position, type, message_id, tenant_id, list_id, campaign_id, message_class, received_at, at, ordinal, person, address,
    status, class, diagnostic, node
)
SELECT (SELECT event_position()), 4, w.message_id, w.tenant_id, w.list_id, w.campaign_id, w.class,
    to_timestamp(w.received_at), to_timestamp(w.received_at), w.ordinal, w.person, w.address, '5.7.1', 'suppressed',
    w.why, $10
FROM unnest(
    $1::bigint[], $2::integer[], $3::integer[], $4::integer[], $5::smallint[], $6::float8[], $7::integer[], $8::bigint[],
    $9::bytea[], $11::text[]
) AS w (message_id, tenant_id, list_id, campaign_id, class, received_at, ordinal, person, address, why);

-- name: due_lanes
-- Where there is anything to claim: 32 looks at the first row of an index, in one question. Said by LIMIT, because the
-- planner makes a join of EXISTS, for which it reads all that is due.
SELECT lane, class
FROM generate_series(0, 15) lane, generate_series(0, 1) class
CROSS JOIN LATERAL (
    SELECT FROM recipient r
    WHERE r.lane = lane.lane::smallint AND r.class = class.class::smallint AND r.state = 0 AND r.due_at <= to_timestamp($1)
    ORDER BY r.due_at
    LIMIT 1
) first;

-- name: claim
-- Lease the oldest due recipients of a lane and class to a worker, with what their messages say. The worker's row is
-- locked: its burial waits for a claim under way, and what a buried one asks for late is given to nobody.
WITH alive AS MATERIALIZED (
    SELECT id FROM worker WHERE id = $5 FOR KEY SHARE
), due AS (
    SELECT message_id, ordinal
    FROM recipient
    WHERE lane = $1 AND class = $2 AND state = 0 AND due_at <= to_timestamp($3) AND EXISTS (SELECT FROM alive)
    ORDER BY due_at
    LIMIT $4
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE recipient r
    SET state = 1, worker_id = $5
    FROM due
    WHERE r.lane = $1 AND r.message_id = due.message_id AND r.ordinal = due.ordinal
    RETURNING r.lane, r.message_id, r.ordinal, r.class, r.attempts, r.delay_reported, r.expires_at, r.person,
        r.address, r.last_outcome, r.site, r.due_at
)
SELECT leased.*, m.tenant_id, m.list_id, m.campaign_id, m.received_at
FROM leased
JOIN message m ON m.lane = $1 AND m.id = leased.message_id;

-- name: put_off
-- Of the oldest due recipients of a lane and class, let those of full sites be due again in the span of their site, spread
-- evenly, but no later than they expire (D4). Returns how many by site.
WITH front AS MATERIALIZED (
    SELECT message_id, ordinal, site
    FROM recipient
    WHERE lane = $1 AND class = $2 AND state = 0 AND due_at <= to_timestamp($3)
    ORDER BY due_at
    LIMIT $4
), due AS (
    SELECT r.message_id, r.ordinal, s.first, s.last
    FROM front
    JOIN unnest($5::text[], $6::float8[], $7::float8[]) AS s (site, first, last) ON s.site = front.site
    JOIN recipient r ON r.lane = $1 AND r.message_id = front.message_id AND r.ordinal = front.ordinal
    WHERE r.state = 0 AND r.due_at <= to_timestamp($3) AND r.expires_at > to_timestamp($3)
    FOR UPDATE OF r SKIP LOCKED
), moved AS (
    UPDATE recipient r
    SET due_at = least(r.expires_at, to_timestamp(due.first + (due.last - due.first) * random()))
    FROM due
    WHERE r.lane = $1 AND r.message_id = due.message_id AND r.ordinal = due.ordinal
    RETURNING r.site
)
SELECT site, count(*) FROM moved GROUP BY site;

-- name: disown
-- Give back what this worker leases of messages older than a time but does not know of: a claim whose answer was lost.
UPDATE recipient r
SET state = 0, worker_id = NULL, due_at = to_timestamp($5)
WHERE r.state = 1 AND r.worker_id = $1 AND r.message_id < $2
    AND (r.message_id, r.ordinal) NOT IN (SELECT * FROM unnest($3::bigint[], $4::integer[]));

-- name: content
-- What a delivery of a message needs besides its recipient.
SELECT tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content
FROM message
WHERE lane = $1 AND id = $2;

-- name: addresses
-- The addresses of some of a message's recipients, for a notice about them.
SELECT ordinal, address
FROM recipient
WHERE lane = $1 AND message_id = $2 AND ordinal = ANY ($3::integer[]);

-- name: person_of
-- The recipient of a message that is this person, for a page that shows whom a link is about.
SELECT ordinal, address
FROM recipient
WHERE lane = $1 AND message_id = $2 AND person = $3
LIMIT 1;

-- name: finish
-- Make recipients final: out of the queue, into the events, in one step. Only rows that the worker still leases; said by
-- coalesce, because the planner must not infer from a time when nothing was leased that there is one such row at most.
WITH done AS (
    SELECT *
    FROM unnest(
        $1::smallint[], $2::bigint[], $3::integer[], $4::smallint[], $5::smallint[], $6::float8[], $7::text[],
        $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::integer[],
        $15::integer[], $16::float8[], $17::integer[]
    ) AS d (
        lane, message_id, ordinal, state, attempts, at, site, status, reply_code, class, remote_mta, diagnostic,
        tenant_id, list_id, campaign_id, received_at, attempt_ms
    )
), gone AS (
    DELETE FROM recipient r
    USING done
    WHERE r.lane = done.lane AND r.message_id = done.message_id AND r.ordinal = done.ordinal AND coalesce(r.worker_id, 0) = $18
    RETURNING r.lane, r.message_id, r.ordinal, r.class, r.person, r.address
)
INSERT INTO event (
    position, message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type, attempts, person, received_at,
    at, site, status, reply_code, class, remote_mta, diagnostic, attempt_ms, address, node
)
SELECT (SELECT event_position()), gone.message_id, gone.ordinal, done.tenant_id, done.list_id, done.campaign_id,
    gone.class, done.state, done.attempts, gone.person, to_timestamp(done.received_at), to_timestamp(done.at),
    done.site, done.status, done.reply_code, done.class, done.remote_mta, done.diagnostic, done.attempt_ms,
    gone.address, $19
FROM gone
JOIN done ON done.lane = gone.lane AND done.message_id = gone.message_id AND done.ordinal = gone.ordinal
RETURNING message_id, ordinal;

-- name: defer
-- Give leased recipients back with the time of their next attempt; what was an attempt is an event. Only rows that the
-- worker still leases, by the lease that this is about: one of another due time, or with as many attempts as an attempt
-- made of it, was given back before, in a commit whose answer was lost or by a worker that died since, and what leases it
-- now is another lease. A journal holds what was committed long ago too. Times are only compared for being the same: the
-- clock may have been set back since the claim.
WITH given AS (
    SELECT *
    FROM unnest(
        $1::smallint[], $2::bigint[], $3::integer[], $4::smallint[], $5::float8[], $6::text[], $7::text[], $8::boolean[],
        $10::boolean[], $11::float8[], $12::text[], $13::smallint[], $14::text[], $15::text[], $16::text[],
        $17::integer[], $18::integer[], $19::integer[], $20::float8[], $21::integer[], $23::smallint[], $24::float8[]
    ) AS d (
        lane, message_id, ordinal, attempts, due_at, site, last_outcome, delay_reported, tried, at, status, reply_code,
        class, remote_mta, diagnostic, tenant_id, list_id, campaign_id, received_at, attempt_ms, state, was_due_at
    )
), back AS (
    UPDATE recipient r
    SET state = d.state, worker_id = NULL, attempts = d.attempts, due_at = to_timestamp(d.due_at), site = d.site,
        last_outcome = d.last_outcome, delay_reported = d.delay_reported
    FROM given d
    WHERE r.lane = d.lane AND r.message_id = d.message_id AND r.ordinal = d.ordinal AND coalesce(r.worker_id, 0) = $9
        AND (
            r.attempts < d.attempts
            OR (r.attempts = d.attempts AND r.due_at = to_timestamp(d.was_due_at) AND (NOT d.tried OR d.attempts = 32000))
        )
    RETURNING r.lane, r.message_id, r.ordinal, r.class, r.person, r.address, r.due_at
), noted AS (
    INSERT INTO event (
        position, message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type, attempts, person,
        received_at, at, due_at, site, status, reply_code, class, remote_mta, diagnostic, attempt_ms, address, node
    )
    SELECT (SELECT event_position()), back.message_id, back.ordinal, d.tenant_id, d.list_id, d.campaign_id, back.class,
        7, d.attempts, back.person, to_timestamp(d.received_at), to_timestamp(d.at), back.due_at, d.site, d.status,
        d.reply_code, d.class, d.remote_mta, d.diagnostic, d.attempt_ms, back.address, $22
    FROM back
    JOIN given d ON d.lane = back.lane AND d.message_id = back.message_id AND d.ordinal = back.ordinal
    WHERE d.tried
)
SELECT message_id, ordinal FROM back;

-- name: sweep_messages
-- Drop the content of messages none of whose recipients is left. The names are candidates; others keep their content.
DELETE FROM message m
USING unnest($1::smallint[], $2::bigint[]) AS c (lane, id)
WHERE m.lane = c.lane AND m.id = c.id
    AND NOT EXISTS (SELECT FROM recipient r WHERE r.lane = m.lane AND r.message_id = m.id);

-- name: sweep_lane
-- Drop content that a crash between finish and sweep_messages left behind in a lane. Young messages may still be going in.
DELETE FROM message m
WHERE m.lane = $1 AND m.received_at < to_timestamp($2)
    AND NOT EXISTS (SELECT FROM recipient r WHERE r.lane = m.lane AND r.message_id = m.id);

-- name: bar
-- Take the ids of messages whose commit is in doubt: waits for those that are still under way, and keeps out those that
-- have yet to begin. The rows have no recipients, and go as leftovers.
INSERT INTO message (lane, id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content)
SELECT a.lane, a.id, 0, 0, 0, 0, to_timestamp($3), to_timestamp($3), '', ''
FROM unnest($1::smallint[], $2::bigint[]) AS a (lane, id)
ON CONFLICT DO NOTHING;

-- name: abandon
-- Take back messages that were barred: whoever submitted them was told to try again. Their content goes as a leftover.
WITH unsaid AS (
    DELETE FROM event e
    USING unnest($2::bigint[]) AS a (id)
    WHERE e.at >= to_timestamp($3) AND e.message_id = a.id
)
DELETE FROM recipient r
USING unnest($1::smallint[], $2::bigint[]) AS a (lane, id)
WHERE r.lane = a.lane AND r.message_id = a.id;

-- name: cancel
-- Make what is queued or held for suppressed persons final, in the transaction that suppresses them. Leased recipients
-- are left to the last check of their worker, and so are those that a claim or a deferral has just locked. class_stopped: 0 campaign mail only, 1 transactional mail too.
WITH stop AS (
    SELECT *
    FROM unnest($1::integer[], $2::bigint[], $3::smallint[], $4::integer[], $5::integer[], $6::smallint[])
        AS s (number, person, scope, tenant_id, list_id, class_stopped)
), hit AS (
    SELECT stop.number, r.lane, r.message_id, r.ordinal
    FROM stop
    JOIN recipient r ON r.person = stop.person
    JOIN message m ON m.lane = r.lane AND m.id = r.message_id
    WHERE r.state IN (0, 2) AND r.class <= stop.class_stopped
        AND (
            stop.scope = 1
            OR (stop.scope = 2 AND m.tenant_id = stop.tenant_id)
            OR (stop.scope = 3 AND m.tenant_id = stop.tenant_id AND m.list_id = stop.list_id)
            OR (stop.scope = 4 AND m.tenant_id IN (SELECT g.tenant_id FROM group_member g WHERE g.group_id = stop.list_id))
        )
    FOR UPDATE OF r SKIP LOCKED
), gone AS (
    DELETE FROM recipient r
    USING hit
    WHERE r.lane = hit.lane AND r.message_id = hit.message_id AND r.ordinal = hit.ordinal AND r.state IN (0, 2)
    RETURNING hit.number, r.lane, r.message_id, r.ordinal, r.attempts, r.person, r.site, r.address
), kept AS (
    INSERT INTO event (
        position, message_id, ordinal, tenant_id, list_id, campaign_id, message_class, type, attempts, person,
        received_at, at, site, status, class, diagnostic, address
    )
    SELECT (SELECT event_position()), gone.message_id, gone.ordinal, m.tenant_id, m.list_id, m.campaign_id, m.class, 5,
        gone.attempts, gone.person, m.received_at, to_timestamp($7), gone.site, '5.7.1', 'suppressed',
        'cancelled: the recipient is suppressed', gone.address
    FROM gone
    JOIN message m ON m.lane = gone.lane AND m.id = gone.message_id
)
SELECT number, count(*) AS cancelled FROM gone GROUP BY number;

-- name: attempts_of
-- What became of a person's mail, for the story of that person.
SELECT at, state, tenant_id, list_id, campaign_id, message_id, message_class, status
FROM outcome
WHERE person = $1
ORDER BY at;

-- name: lists_of
-- Every list of a tenant that ever sent to a person, as far back as outcomes are kept.
SELECT DISTINCT l.id, l.name
FROM outcome o
JOIN list l ON l.id = o.list_id
WHERE o.person = $1 AND o.tenant_id = $2
ORDER BY l.name;

-- name: delivered_since
-- What was delivered since a time, to be compared with the log.
SELECT person, at, tenant_id, list_id, campaign_id, message_id, message_class, status
FROM outcome
WHERE state = 1 AND at >= to_timestamp($1) AND at < to_timestamp($2);

-- name: delivered_of
-- Which of some persons' mail was delivered, of some messages, to be compared with the log.
SELECT person, at, tenant_id, list_id, campaign_id, message_id, message_class, status
FROM outcome
WHERE state = 1 AND person = ANY ($1::bigint[]) AND message_id = ANY ($2::bigint[]);

-- name: register
-- A new worker, alive from now on.
INSERT INTO worker (node) VALUES ($1) RETURNING id;

-- name: heartbeat
-- Say that a worker lives. No row: others took it for dead, and what it leased is not its own any more.
UPDATE worker SET heartbeat_at = clock_timestamp() WHERE id = $1 RETURNING id;

-- name: workers
-- Living workers in a stable order, for dividing what a site allows among them.
SELECT id FROM worker WHERE heartbeat_at > clock_timestamp() - make_interval(secs => $1) ORDER BY id;

-- name: bury
-- Forget workers by id that were there at a time already: they are known dead.
DELETE FROM worker WHERE id = ANY ($1::integer[]) AND started_at <= to_timestamp($2) RETURNING id;

-- name: silent
-- The time here, and whether a worker of whatever node has been silent for too long.
SELECT extract(epoch FROM clock_timestamp())::float8,
    EXISTS (SELECT FROM worker WHERE heartbeat_at < clock_timestamp() - make_interval(secs => $1));

-- name: bury_silent
-- Forget workers of whatever node that have been silent for too long.
DELETE FROM worker WHERE heartbeat_at < clock_timestamp() - make_interval(secs => $1) RETURNING id;

-- name: reclaim
-- What is leased by a worker that is not alive goes back to the queue, due at once.
UPDATE recipient r
SET state = 0, worker_id = NULL, due_at = to_timestamp($1)
WHERE r.state = 1 AND NOT EXISTS (SELECT FROM worker w WHERE w.id = r.worker_id);
