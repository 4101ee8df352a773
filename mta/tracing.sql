-- The statements of mta/tracing.py.

-- name: of_message
-- Every event of a message, or of one of its recipients, in order of time; none is older than the message.
SELECT at, type, message_id, ordinal, person, received_at, due_at, recipients, bytes, attempt_ms, attempts, reply_code,
    site, status, class, remote_mta, diagnostic, node, tenant_id, campaign_id, address
FROM event
WHERE message_id = $1 AND at >= to_timestamp($2) AND ($3 < 0 OR ordinal = $3 OR ordinal IS NULL)
ORDER BY at, id
LIMIT $4;

-- name: of_person
-- Every event of a person, the newest.
SELECT at, type, message_id, ordinal, person, received_at, due_at, recipients, bytes, attempt_ms, attempts, reply_code,
    site, status, class, remote_mta, diagnostic, node, tenant_id, campaign_id, address
FROM event
WHERE person = $1
ORDER BY at DESC, id DESC
LIMIT $2;

-- name: waiting_of_message
-- The recipients of a message that are not final.
SELECT r.message_id, r.ordinal, r.person, r.state, r.class, r.attempts, r.due_at, r.expires_at, r.site, r.last_outcome,
    r.worker_id, w.node, r.address, m.tenant_id, m.list_id, m.campaign_id, m.received_at
FROM recipient r
JOIN message m ON m.lane = r.lane AND m.id = r.message_id
LEFT JOIN worker w ON w.id = r.worker_id
WHERE r.lane = $1 AND r.message_id = $2 AND ($3 < 0 OR r.ordinal = $3)
ORDER BY r.ordinal
LIMIT $4;

-- name: waiting_of_person
-- What waits for a person.
SELECT r.message_id, r.ordinal, r.person, r.state, r.class, r.attempts, r.due_at, r.expires_at, r.site, r.last_outcome,
    r.worker_id, w.node, r.address, m.tenant_id, m.list_id, m.campaign_id, m.received_at
FROM recipient r
JOIN message m ON m.lane = r.lane AND m.id = r.message_id
LEFT JOIN worker w ON w.id = r.worker_id
WHERE r.person = $1
ORDER BY m.received_at DESC
LIMIT $2;

-- name: site_outcomes
-- What sites said last to some who still wait for them. One look at the queue for all of them together: each look goes
-- through all of it where a site has said nothing.
SELECT site, last_outcome FROM recipient WHERE site = ANY ($1::text[]) AND last_outcome IS NOT NULL LIMIT $2;

-- name: lost_outcome
-- Why the way of some of a campaign's queued recipients is not known: what was found out last about one of the first so many
-- ($2), because somebody waits for the answer.
SELECT last_outcome
FROM (
    SELECT r.site, r.last_outcome
    FROM message m
    JOIN recipient r ON r.lane = m.lane AND r.message_id = m.id
    WHERE m.campaign_id = $1 AND r.state = 0
    LIMIT $2
) first
WHERE coalesce(site, '') = '' AND last_outcome IS NOT NULL
LIMIT 1;
