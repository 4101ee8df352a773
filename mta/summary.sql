-- The statements of mta/summary.py.

-- name: turn
-- Take the turn of counting until the end of the transaction, if it has come and nobody has it: no sooner than $1 seconds,
-- nor than $2 times as long as the last count took.
UPDATE queue_summary_head
SET at = clock_timestamp()
WHERE one IN (
    SELECT one FROM queue_summary_head
    WHERE at < clock_timestamp() - make_interval(secs => greatest($1::float8, $2::float8 * seconds))
    FOR UPDATE SKIP LOCKED
)
RETURNING at;

-- name: turn_now
-- Take the turn at once, waiting for whoever has it, unless a count takes longer than $1 seconds.
UPDATE queue_summary_head SET at = clock_timestamp() WHERE seconds < $1 RETURNING at;

-- name: forget
-- What was counted before.
DELETE FROM queue_summary;

-- name: count
-- Count the queue by what people ask for.
INSERT INTO queue_summary (
    tenant_id, list_id, campaign_id, state, class, site, recipients, oldest, next_attempt, last_attempt
)
SELECT m.tenant_id, m.list_id, m.campaign_id, r.state, r.class, coalesce(r.site, ''), count(*), min(m.received_at),
    min(r.due_at) FILTER (WHERE r.state = 0), max(r.due_at) FILTER (WHERE r.state = 0)
FROM recipient r
JOIN message m ON m.lane = r.lane AND m.id = r.message_id
GROUP BY m.tenant_id, m.list_id, m.campaign_id, r.state, r.class, r.site;

-- name: counted
-- Say how long the count took.
UPDATE queue_summary_head SET seconds = $1;

-- name: age
-- How old the summary is, in seconds.
SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM queue_summary_head;

-- name: totals
-- Recipients by state, and when the most overdue one of each was due.
SELECT state, sum(recipients)::bigint AS recipients, min(next_attempt) AS next_attempt, min(oldest) AS oldest
FROM queue_summary
GROUP BY state;

-- name: overview
-- What is queued by tenant, campaign, state and site, the largest groups first; empty filters let everything through.
SELECT t.name AS tenant, c.name AS campaign, c.id AS campaign_id, coalesce(l.name, '') AS list, s.state, s.site,
    sum(s.recipients)::bigint AS recipients, min(s.oldest) AS oldest, min(s.next_attempt) AS next_attempt,
    max(s.last_attempt) AS last_attempt
FROM queue_summary s
JOIN tenant t ON t.id = s.tenant_id
JOIN campaign c ON c.id = s.campaign_id
LEFT JOIN list l ON l.id = s.list_id
WHERE ($1 = '' OR t.name = $1) AND ($2 = '' OR c.name = $2 OR c.id::text = $2) AND ($3 = '' OR l.name = $3)
    AND ($4 = '' OR s.site = $4) AND ($5 < 0 OR s.state = $5)
GROUP BY t.name, c.name, c.id, l.name, s.state, s.site
ORDER BY recipients DESC, t.name, c.name, l.name, s.state, s.site
LIMIT $6;

-- name: known
-- Whether there is a tenant, and of it a campaign and a list, of these names; an empty name is one that is known.
SELECT $1 = '' OR EXISTS (SELECT FROM tenant WHERE name = $1) AS tenant,
    $2 = '' OR EXISTS (
        SELECT FROM campaign c JOIN tenant t ON t.id = c.tenant_id
        WHERE (c.name = $2 OR c.id::text = $2) AND ($1 = '' OR t.name = $1)
    ) AS campaign,
    $3 = '' OR EXISTS (
        SELECT FROM list l JOIN tenant t ON t.id = l.tenant_id WHERE l.name = $3 AND ($1 = '' OR t.name = $1)
    ) AS list;

-- name: campaigns
-- Campaigns with what is queued of them, those with most first, then the newest.
SELECT c.id, t.name AS tenant, c.name AS campaign, c.tenant_id, c.created_at,
    coalesce(sum(s.recipients) FILTER (WHERE s.state = 0), 0)::bigint AS queued,
    coalesce(sum(s.recipients) FILTER (WHERE s.state = 1), 0)::bigint AS leased,
    coalesce(sum(s.recipients) FILTER (WHERE s.state = 2), 0)::bigint AS held,
    min(s.oldest) AS oldest, min(s.next_attempt) AS next_attempt
FROM campaign c
JOIN tenant t ON t.id = c.tenant_id
LEFT JOIN queue_summary s ON s.campaign_id = c.id
WHERE ($1 = '' OR t.name = $1) AND ($2 = 0 OR c.id = $2)
GROUP BY c.id, t.name
ORDER BY coalesce(sum(s.recipients), 0) DESC, c.id DESC
LIMIT $3;

-- name: sites
-- Sites with what is queued for them; recipients whose site is not known yet are left out.
SELECT site, sum(recipients)::bigint AS recipients, min(oldest) AS oldest, min(next_attempt) AS next_attempt
FROM queue_summary
WHERE site <> ''
GROUP BY site
ORDER BY recipients DESC
LIMIT $1;
