-- The statements of mta/order_store.py.
-- Those that move rows find and lock them first, and change exactly those, by their key: a state in the outer condition
-- would offer the planner an index by state, and with it a comparison of every such row with every one that was found.

-- name: head
-- The newest change, and whether this server takes writes: a standby proves nothing.
SELECT position, pg_is_in_recovery() FROM order_head;

-- name: orders
-- The newest change, as in head, and everything that is ordered then, newest first; a row without a reach where there is
-- nothing. What is over, or has cancelled what can't be queued any more ($1: before then), is left out. The limit tells the
-- planner that there is one head: without statistics it expects thousands, and has the statement compiled.
SELECT h.position, pg_is_in_recovery() AS standby,
    reach, target, site, state, reason, actor, at, until, not_before, send_window, cancelled_at, scheduled_at, scheduler,
    schedule_reason
FROM (SELECT position FROM order_head LIMIT 1) h
LEFT JOIN standing_order ON (state = 2 AND (reach = 1 OR at > to_timestamp($1))) OR cancelled_at > to_timestamp($1)
    OR (state = 1 AND (until IS NULL OR until > clock_timestamp()))
    OR not_before > clock_timestamp() OR send_window <> ''
ORDER BY at DESC;

-- name: begin_change
-- What an operator does takes place: the next position, under a lock until the commit, which hastens everybody's look.
WITH head AS (
    UPDATE order_head SET position = position + 1 RETURNING position
), noted AS (
    INSERT INTO operator_log (at, actor, action, reach, target, site, reason, details)
    VALUES (to_timestamp($1), $2, $3, $4, $5, $6, $7, $8)
)
SELECT pg_notify('heed_orders', position::text) FROM head;

-- name: set_state
-- Pause, resume or cancel; when mail may leave at all stays as it was, and what was cancelled before stays cancelled. No row
-- for the pause of a cancelled campaign, which takes no mail that could be held.
INSERT INTO standing_order AS o (reach, target, site, state, reason, actor, at, until)
VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7), to_timestamp($8))
ON CONFLICT (reach, target, site) DO UPDATE
SET state = excluded.state, reason = excluded.reason, actor = excluded.actor, at = excluded.at, until = excluded.until,
    cancelled_at = CASE WHEN o.state = 2 THEN o.at ELSE o.cancelled_at END
WHERE NOT (o.reach = 1 AND o.state = 2 AND excluded.state = 1);

-- name: cancel_paused
-- Cancel what was accepted until now ($4) of a list, tenant or site that is paused, and stays so.
UPDATE standing_order
SET cancelled_at = to_timestamp($4)
WHERE reach = $1 AND target = $2 AND site = $3 AND reach <> 1 AND state = 1 AND (until IS NULL OR until > to_timestamp($4));

-- name: set_schedule
-- Set when mail may leave at all; whether it is paused or cancelled stays as it was.
INSERT INTO standing_order
    (reach, target, site, state, reason, actor, at, schedule_reason, scheduler, scheduled_at, not_before, send_window)
VALUES ($1, $2, $3, 0, '', '', to_timestamp($6), $4, $5, to_timestamp($6), to_timestamp($7), $8)
ON CONFLICT (reach, target, site) DO UPDATE
SET schedule_reason = excluded.schedule_reason, scheduler = excluded.scheduler, scheduled_at = excluded.scheduled_at,
    not_before = excluded.not_before, send_window = excluded.send_window;

-- name: require_consent
-- Whether campaign mail of a tenant needs a recorded consent.
UPDATE tenant SET consent_required = $2 WHERE id = $1;

-- name: consent_required
-- The tenants whose campaign mail needs a recorded consent.
SELECT id FROM tenant WHERE consent_required;

-- name: note
-- Write down what an operator did that is no order.
INSERT INTO operator_log (at, actor, action, reach, target, site, reason, details)
VALUES (to_timestamp($1), $2, $3, $4, $5, $6, $7, $8);

-- name: history
-- What operators did about a target, newest first.
SELECT at, actor, action, reason, details
FROM operator_log
WHERE reach = $1 AND target = $2 AND site = $3
ORDER BY id DESC
LIMIT 20;

-- name: campaigns_of
-- The campaigns that these campaigns, lists and tenants are, or can have mail in.
SELECT id FROM campaign WHERE id = ANY ($1::integer[]) OR tenant_id = ANY ($3::integer[])
UNION SELECT c.id FROM list l JOIN campaign c ON c.tenant_id = l.tenant_id WHERE l.id = ANY ($2::integer[]);

-- name: hold
-- Set aside what is queued of these campaigns ($2), lists ($3) and tenants ($4) in a lane, a bounded number; $6: all
-- campaigns that can have any of it; not what is cancelled, as in recall ($7 to $9). Messages first: a plan that begins with what is queued goes through the whole lane.
WITH hit AS (
    SELECT r.lane, r.message_id, r.ordinal
    FROM (
        SELECT id
        FROM message
        WHERE lane = $1 AND campaign_id = ANY ($6::integer[])
            AND (campaign_id = ANY ($2::integer[]) OR list_id = ANY ($3::integer[]) OR tenant_id = ANY ($4::integer[]))
            AND NOT EXISTS (
                SELECT
                FROM unnest($7::smallint[], $8::integer[], $9::float8[]) AS o (reach, target, at)
                WHERE o.target = CASE o.reach WHEN 1 THEN campaign_id WHEN 2 THEN list_id ELSE tenant_id END
                    AND received_at <= to_timestamp(o.at)
            )
        OFFSET 0
    ) m
    JOIN recipient r ON r.lane = $1 AND r.message_id = m.id
    WHERE r.state = 0 AND r.expires_at > clock_timestamp()
    LIMIT $5
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE recipient r
SET state = 2
FROM hit
WHERE r.lane = hit.lane AND r.message_id = hit.message_id AND r.ordinal = hit.ordinal;

-- name: release
-- Queue what is held in a lane and no order holds any more, a bounded number; a later attempt stays later. What has
-- outlived its lifetime is queued too: whoever claims it finds it expired.
WITH free AS (
    SELECT r.lane, r.message_id, r.ordinal
    FROM recipient r
    JOIN message m ON m.lane = r.lane AND m.id = r.message_id
    WHERE r.lane = $1 AND r.state = 2
        AND (
            r.expires_at <= clock_timestamp()
            OR NOT (
                m.campaign_id = ANY ($2::integer[]) OR m.list_id = ANY ($3::integer[]) OR m.tenant_id = ANY ($4::integer[])
                OR coalesce(r.site, '') = ANY ($5::text[])
            )
        )
    LIMIT $6
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE recipient r
SET state = 0, due_at = CASE WHEN r.expires_at <= clock_timestamp() THEN clock_timestamp()
    ELSE greatest(r.due_at, clock_timestamp()) END
FROM free
WHERE r.lane = free.lane AND r.message_id = free.message_id AND r.ordinal = free.ordinal;

-- name: recall
-- Make due what is queued or held and cancelled in a lane, a bounded number: whoever claims it finds it cancelled, and
-- reports it like every other outcome. Of no site, so that it is not put off because that is full. The times are those of
-- the orders; what was accepted later is not theirs.
WITH ordered AS (
    SELECT o.reach, o.target, o.at
    FROM unnest($2::smallint[], $3::integer[], $4::float8[]) AS o (reach, target, at)
), mine AS (
    SELECT c.id AS campaign_id, o.reach, o.target, o.at
    FROM ordered o
    JOIN campaign c ON (o.reach = 1 AND c.id = o.target) OR (o.reach = 3 AND c.tenant_id = o.target)
        OR (o.reach = 2 AND c.tenant_id = (SELECT l.tenant_id FROM list l WHERE l.id = o.target))
), hit AS (
    SELECT r.lane, r.message_id, r.ordinal
    FROM mine
    JOIN message m ON m.campaign_id = mine.campaign_id
    JOIN recipient r ON r.lane = m.lane AND r.message_id = m.id
    WHERE m.lane = $1 AND (r.state = 2 OR (r.state = 0 AND r.due_at > clock_timestamp()))
        AND (mine.reach <> 2 OR m.list_id = mine.target) AND m.received_at <= to_timestamp(mine.at)
    LIMIT $5
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE recipient r
SET state = 0, due_at = clock_timestamp(), site = NULL
FROM hit
WHERE r.lane = hit.lane AND r.message_id = hit.message_id AND r.ordinal = hit.ordinal;

-- name: recall_sites
-- Likewise for what was held or deferred at a cancelled site.
WITH hit AS (
    SELECT r.lane, r.message_id, r.ordinal
    FROM unnest($2::text[], $3::float8[]) AS o (site, at)
    JOIN recipient r ON r.site = o.site
    JOIN message m ON m.lane = r.lane AND m.id = r.message_id
    WHERE r.lane = $1 AND (r.state = 2 OR (r.state = 0 AND r.due_at > clock_timestamp()))
        AND m.received_at <= to_timestamp(o.at)
    LIMIT $4
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE recipient r
SET state = 0, due_at = clock_timestamp(), site = NULL
FROM hit
WHERE r.lane = hit.lane AND r.message_id = hit.message_id AND r.ordinal = hit.ordinal;

-- name: find_campaigns
-- Campaigns by id or name, of a tenant or of all.
SELECT c.id, c.name, t.name AS tenant
FROM campaign c
JOIN tenant t ON t.id = c.tenant_id
WHERE (c.id::text = $1 OR c.name = $1) AND ($2 = '' OR t.name = $2)
ORDER BY c.id::text = $1 DESC, c.id
LIMIT 10;

-- name: find_lists
-- Lists by name, of a tenant or of all.
SELECT l.id, l.name, t.name AS tenant
FROM list l
JOIN tenant t ON t.id = l.tenant_id
WHERE l.name = $1 AND ($2 = '' OR t.name = $2)
LIMIT 10;

-- name: find_tenant
-- A tenant by name.
SELECT id, name FROM tenant WHERE name = $1;

-- name: target_names
-- The names of what orders are about: campaigns, lists, tenants.
SELECT 1 AS reach, c.id, t.name || '/' || c.name AS name FROM campaign c JOIN tenant t ON t.id = c.tenant_id
WHERE c.id = ANY ($1::integer[])
UNION ALL SELECT 2, l.id, t.name || '/' || l.name FROM list l JOIN tenant t ON t.id = l.tenant_id
WHERE l.id = ANY ($2::integer[])
UNION ALL SELECT 3, t.id, t.name FROM tenant t WHERE t.id = ANY ($3::integer[]);

-- name: campaign_ids
-- The tenant and the lists of a campaign with queued mail, for finding the orders that stop it.
SELECT c.tenant_id, coalesce(array_agg(DISTINCT s.list_id) FILTER (WHERE s.list_id > 0), '{}') AS lists,
    coalesce(array_agg(DISTINCT s.site) FILTER (WHERE s.site <> ''), '{}') AS sites
FROM campaign c
LEFT JOIN queue_summary s ON s.campaign_id = c.id
WHERE c.id = $1
GROUP BY c.tenant_id;
