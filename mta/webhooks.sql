-- The statements of mta/webhooks.py.

-- name: add
-- A new webhook, which gets what happens from now on.
INSERT INTO webhook (tenant_id, url, secret, types, addresses, position, event_id, log_position)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id;

-- name: listed
-- Webhooks for the command line; tenant 0: of all.
SELECT w.id, t.name AS tenant, w.url, w.types, w.addresses, w.created_at, w.sent, w.failures, w.failing_since,
    w.last_error, w.last_success_at, w.next_at, w.leased_by, w.leased_until
FROM webhook w
JOIN tenant t ON t.id = w.tenant_id
WHERE $1 = 0 OR w.tenant_id = $1
ORDER BY w.id;

-- name: one
-- A webhook by its id, for a test of it.
SELECT id, tenant_id, url, secret, types, addresses, position, event_id, log_position, failures FROM webhook WHERE id = $1;

-- name: remove
-- Forget a webhook.
DELETE FROM webhook WHERE id = $1 RETURNING id;

-- name: rewind
-- Let a webhook begin again at a cursor, at once, or where it is if it has not come that far. Whoever is sending loses
-- its lease with the cursor that it knew.
UPDATE webhook
SET (position, event_id) = (
        SELECT place.position, place.id FROM (VALUES (webhook.position, event_id), ($2, $3)) AS place (position, id)
        ORDER BY 1, 2 LIMIT 1
    ),
    log_position = least(log_position, $4), next_at = '-infinity', leased_by = NULL, leased_until = '-infinity'
WHERE id = $1
RETURNING id;

-- name: lease
-- Take the webhooks whose time has come and for which nobody sends, except some.
UPDATE webhook
SET leased_by = $1, leased_until = clock_timestamp() + make_interval(secs => $2)
WHERE id IN (
    SELECT w.id FROM webhook w
    WHERE w.next_at <= clock_timestamp() AND w.leased_until < clock_timestamp() AND w.id <> ALL ($3::integer[])
    FOR UPDATE SKIP LOCKED
)
RETURNING id, tenant_id, url, secret, types, addresses, position, event_id, log_position, failures;

-- name: failing
-- For how many seconds the webhook that has failed longest has taken nothing.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(failing_since)), 0)::float8 FROM webhook;

-- name: advance
-- Move a webhook's cursor and keep its lease; no row when the lease or the cursor is another's by now.
UPDATE webhook
SET position = $3, event_id = $4, log_position = $5, leased_until = clock_timestamp() + make_interval(secs => $6),
    sent = sent + $7, failures = CASE WHEN $7 > 0 THEN 0 ELSE failures END,
    failing_since = CASE WHEN $7 > 0 THEN NULL ELSE failing_since END,
    last_error = CASE WHEN $7 > 0 THEN '' ELSE last_error END,
    last_success_at = CASE WHEN $7 > 0 THEN clock_timestamp() ELSE last_success_at END
WHERE id = $1 AND leased_by = $2 AND position = $8 AND event_id = $9 AND log_position = $10
RETURNING id;

-- name: failed
-- Note that a delivery failed, and let go until the next one is due.
UPDATE webhook
SET failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp()), last_error = $3,
    next_at = clock_timestamp() + make_interval(secs => $4), leased_by = NULL, leased_until = '-infinity'
WHERE id = $1 AND leased_by = $2;

-- name: release
-- Let go of webhooks, for whoever comes next.
UPDATE webhook SET leased_by = NULL, leased_until = '-infinity' WHERE leased_by = $1;

-- name: leave
-- Let go of one, for whoever can send for it.
UPDATE webhook SET leased_by = NULL, leased_until = '-infinity' WHERE leased_by = $1 AND id = $2;
