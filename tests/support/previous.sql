-- Statements of the version before events: what its workers send while a newer node migrates. Never edited.

-- name: insert
-- Store a batch of messages of one lane with their recipients. A recipient with a worker is born leased by it, so that
-- its first attempt needs neither claim nor read.
WITH stored AS (
    INSERT INTO message (lane, id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content)
    SELECT $1, m.id, m.tenant_id, m.list_id, m.campaign_id, m.class,
        to_timestamp(m.received_at), to_timestamp(m.expires_at), m.envelope, m.content
    FROM unnest(
        $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::smallint[], $7::float8[], $8::float8[],
        $9::bytea[], $10::bytea[]
    ) AS m (id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope, content)
)
INSERT INTO recipient (lane, message_id, ordinal, state, class, worker_id, due_at, expires_at, person, address)
SELECT $1, r.message_id, r.ordinal, CASE WHEN r.worker_id IS NULL THEN 0 ELSE 1 END, r.class, r.worker_id,
    to_timestamp(r.due_at), to_timestamp(r.expires_at), r.person, r.address
FROM unnest(
    $11::bigint[], $12::integer[], $13::smallint[], $14::integer[], $15::float8[], $16::float8[], $17::bigint[],
    $18::bytea[]
) AS r (message_id, ordinal, class, worker_id, due_at, expires_at, person, address);

-- name: claim
-- Lease the oldest due recipients of a lane and class to a worker, with what their messages say.
WITH due AS (
    SELECT lane, message_id, ordinal
    FROM recipient
    WHERE lane = $1 AND class = $2 AND state = 0 AND due_at <= to_timestamp($3)
    ORDER BY due_at
    LIMIT $4
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE recipient r
    SET state = 1, worker_id = $5
    FROM due
    WHERE r.lane = due.lane AND r.message_id = due.message_id AND r.ordinal = due.ordinal
    RETURNING r.lane, r.message_id, r.ordinal, r.class, r.attempts, r.delay_reported, r.expires_at, r.person,
        r.address, r.last_outcome
)
SELECT leased.*, m.tenant_id, m.list_id, m.campaign_id, m.received_at
FROM leased
JOIN message m ON m.lane = leased.lane AND m.id = leased.message_id;

-- name: finish
-- Make recipients final: out of the queue, into the outcomes, in one step. Only rows that the worker still leases.
WITH done AS (
    SELECT *
    FROM unnest(
        $1::smallint[], $2::bigint[], $3::integer[], $4::smallint[], $5::smallint[], $6::float8[], $7::text[],
        $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::integer[],
        $15::integer[], $16::float8[]
    ) AS d (
        lane, message_id, ordinal, state, attempts, at, site, status, reply_code, class, remote_mta, diagnostic,
        tenant_id, list_id, campaign_id, received_at
    )
), gone AS (
    DELETE FROM recipient r
    USING done
    WHERE r.lane = done.lane AND r.message_id = done.message_id AND r.ordinal = done.ordinal AND r.worker_id = $17
    RETURNING r.lane, r.message_id, r.ordinal, r.class, r.person
)
INSERT INTO outcome (
    message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts, person, received_at, at, site, status,
    reply_code, class, remote_mta, diagnostic
)
SELECT gone.message_id, gone.ordinal, done.tenant_id, done.list_id, done.campaign_id, gone.class, done.state, done.attempts,
    gone.person, to_timestamp(done.received_at), to_timestamp(done.at), done.site, done.status, done.reply_code, done.class, done.remote_mta,
    done.diagnostic
FROM gone
JOIN done ON done.lane = gone.lane AND done.message_id = gone.message_id AND done.ordinal = gone.ordinal
RETURNING message_id, ordinal;

-- name: defer
-- Give leased recipients back with the time of their next attempt. Only rows that the worker still leases.
UPDATE recipient r
SET state = 0, worker_id = NULL, attempts = d.attempts, due_at = to_timestamp(d.due_at), site = d.site,
    last_outcome = d.last_outcome, delay_reported = d.delay_reported
FROM unnest(
    $1::smallint[], $2::bigint[], $3::integer[], $4::smallint[], $5::float8[], $6::text[], $7::text[], $8::boolean[]
) AS d (lane, message_id, ordinal, attempts, due_at, site, last_outcome, delay_reported)
WHERE r.lane = d.lane AND r.message_id = d.message_id AND r.ordinal = d.ordinal AND r.worker_id = $9
RETURNING r.message_id, r.ordinal;

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
        )
    FOR UPDATE OF r SKIP LOCKED
), gone AS (
    DELETE FROM recipient r
    USING hit
    WHERE r.lane = hit.lane AND r.message_id = hit.message_id AND r.ordinal = hit.ordinal AND r.state IN (0, 2)
    RETURNING hit.number, r.lane, r.message_id, r.ordinal, r.attempts, r.person, r.site
), kept AS (
    INSERT INTO outcome (
        message_id, ordinal, tenant_id, list_id, campaign_id, message_class, state, attempts, person, received_at, at, site, status,
        reply_code, class, remote_mta, diagnostic
    )
    SELECT gone.message_id, gone.ordinal, m.tenant_id, m.list_id, m.campaign_id, m.class, 5, gone.attempts, gone.person,
        m.received_at, to_timestamp($7), gone.site, '5.7.1', 0, 'suppressed', '', 'cancelled: the recipient is suppressed'
    FROM gone
    JOIN message m ON m.lane = gone.lane AND m.id = gone.message_id
)
SELECT number, count(*) AS cancelled FROM gone GROUP BY number;
