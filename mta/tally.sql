-- The statements of mta/tally.py.

-- name: counts
-- Events of a window of positions, counted by what tallies are kept of. A recipient is deferred once, however often.
SELECT e.tenant_id, e.campaign_id, date_trunc('hour', e.at, 'UTC') AS hour, e.type, coalesce(e.site, '') AS site, e.class,
    sum(CASE WHEN e.type = 7 AND e.attempts > 1 THEN 0 ELSE coalesce(e.recipients, 1) END)::bigint AS recipients,
    count(*) AS messages, sum(coalesce(e.bytes, 0))::bigint AS bytes
FROM event e
WHERE e.position > $1 AND e.position <= $2
GROUP BY 1, 2, 3, 4, 5, 6;

-- name: withdrawals
-- Unsubscribes and complaints of a part of the log, counted likewise.
SELECT l.tenant_id, l.campaign_id, date_trunc('hour', l.at, 'UTC') AS hour, l.kind, l.channel, count(*) AS recipients
FROM suppression_log l
WHERE l.position > $1 AND l.position <= $2 AND l.action = 1 AND l.kind IN (1, 2)
GROUP BY 1, 2, 3, 4, 5;

-- name: add
-- Add counts to the tallies.
INSERT INTO tally (tenant_id, campaign_id, hour, type, provider, class, channel, recipients, messages, bytes)
SELECT * FROM unnest(
    $1::integer[], $2::integer[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::bigint[], $10::bigint[]
)
ON CONFLICT (campaign_id, hour, type, provider, class, channel, tenant_id) DO UPDATE
SET recipients = tally.recipients + excluded.recipients, messages = tally.messages + excluded.messages,
    bytes = tally.bytes + excluded.bytes;

-- name: campaign
-- All tallies of a campaign.
SELECT hour, type, provider, class, channel, recipients
FROM tally
WHERE campaign_id = $1 AND tenant_id = $2
ORDER BY hour;

-- name: usage
-- What tenants have used, by month; tenant 0: all of them.
SELECT t.name AS tenant, date_trunc('month', y.hour, 'UTC') AS month,
    coalesce(sum(y.messages) FILTER (WHERE y.type = 'Reception'), 0)::bigint AS messages,
    coalesce(sum(y.recipients) FILTER (WHERE y.type = 'Reception'), 0)::bigint AS accepted,
    coalesce(sum(y.recipients) FILTER (WHERE y.type = 'Delivery'), 0)::bigint AS delivered,
    coalesce(sum(y.recipients) FILTER (WHERE y.type = 'Bounce'), 0)::bigint AS bounced,
    coalesce(sum(y.bytes), 0)::bigint AS bytes
FROM tally y
JOIN tenant t ON t.id = y.tenant_id
WHERE ($1 = 0 OR y.tenant_id = $1) AND y.hour >= $2 AND y.hour < $3
GROUP BY 1, 2
ORDER BY 2, 1;

-- name: find_campaign
-- The campaign of a tenant by its name.
SELECT id FROM campaign WHERE tenant_id = $1 AND name = $2;

-- name: cursor
-- How far events are counted; locked for who counts on.
SELECT position, event_id, log_position FROM event_cursor WHERE name = $1 FOR UPDATE SKIP LOCKED;

-- name: move
-- Note how far events are counted.
UPDATE event_cursor SET position = $2, event_id = $3, log_position = $4 WHERE name = $1;

-- name: next_position
-- The first position of a span that has an event.
SELECT min(position) FROM event WHERE position > $1 AND position <= $2;
