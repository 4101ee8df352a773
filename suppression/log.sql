-- The statements of suppression/log.py.

-- name: lock_head
-- Take the lock under which alone the log grows. The clock is read after the lock was had (the CTE is materialised).
WITH head AS MATERIALIZED (SELECT position, hash, at FROM suppression_head FOR UPDATE)
SELECT position, hash, greatest(at, clock_timestamp()) AS now FROM head;

-- name: in_force
-- Every kind that is in force for these scope keys.
SELECT key, kind, effect, position FROM suppression WHERE key = ANY ($1::bigint[]);

-- name: in_force_since
-- Every kind that is in force for these scope keys, and since when.
SELECT suppression.key, suppression.kind, suppression.effect, suppression_log.at
FROM suppression JOIN suppression_log USING (position) WHERE suppression.key = ANY ($1::bigint[]);

-- name: entries_at
-- The entries at these positions.
SELECT position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person, key,
       channel, actor, reason, previous, hash
FROM suppression_log WHERE position = ANY ($1::bigint[]) ORDER BY position;

-- name: write
-- Write entries to the log, bring what is in force and the head up to date, and hint at it. Holds the head's lock.
WITH entry AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::bigint[], $2::timestamptz[], $3::smallint[], $4::smallint[], $5::smallint[], $6::smallint[],
        $7::integer[], $8::integer[], $9::integer[], $10::integer[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::text[], $15::text[], $16::text[], $17::bytea[], $18::bytea[], $19::smallint[]
    ) AS entry (
        position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person, key,
        channel, actor, reason, previous, hash, own_effect
    )
), logged AS (
    INSERT INTO suppression_log
    SELECT position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person,
           key, channel, actor, reason, previous, hash
    FROM entry ORDER BY position
), put_in_force AS (
    INSERT INTO suppression (key, kind, effect, position)
    SELECT key, kind, own_effect, position FROM entry WHERE action = 1
), lifted AS (
    DELETE FROM suppression USING entry
    WHERE entry.action IN (2, 3) AND suppression.key = entry.key AND suppression.kind = entry.kind
), head AS (
    UPDATE suppression_head SET (position, hash, at) =
        (SELECT position, hash, at FROM entry ORDER BY position DESC LIMIT 1)
)
SELECT pg_notify('heed_suppression', max(position)::text) FROM entry;

-- name: read_after
-- The log from a position on, in its order.
SELECT position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person, key,
       channel, actor, reason, previous, hash
FROM suppression_log WHERE position > $1 ORDER BY position LIMIT $2;

-- name: read_person
-- All that was ever written about one person.
SELECT position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person, key,
       channel, actor, reason, previous, hash
FROM suppression_log WHERE person = $1 ORDER BY position;

-- name: read_persons
-- All that was ever written about some persons.
SELECT position, at, action, scope, kind, effect, tenant_id, list_id, campaign_id, cancelled, message_id, person, key,
       channel, actor, reason, previous, hash
FROM suppression_log WHERE person = ANY ($1::bigint[]) ORDER BY position;

-- name: head
-- The newest position of the log and its hash.
SELECT position, hash FROM suppression_head;

-- name: hashes_at
-- The hashes of the entries at these positions.
SELECT position, hash FROM suppression_log WHERE position = ANY ($1::bigint[]);

-- name: count_in_force
-- How many suppressions are in force; counts them all.
SELECT count(*) FROM suppression;

-- name: first_out_of_force
-- The first entry, of those up to a position, of which the table of what is in force says something else than the log;
-- what has changed since that position is left out.
WITH last AS (
    SELECT DISTINCT ON (key, kind) key, kind, position, action FROM suppression_log
    WHERE position <= $1 AND action IN (1, 2, 3) ORDER BY key, kind, position DESC
)
SELECT min(coalesce(last.position, suppression.position))
FROM last FULL JOIN suppression USING (key, kind)
WHERE (
    last.position IS NULL OR (last.action = 1) <> (suppression.position IS NOT NULL)
    OR suppression.position <> last.position
) AND NOT EXISTS (
    SELECT FROM suppression_log AS later
    WHERE later.position > $1 AND later.key = coalesce(last.key, suppression.key)
    AND later.kind = coalesce(last.kind, suppression.kind)
);

-- name: copy_keys
-- What is in force, as the index's keys: the lowest bit is set where transactional mail is stopped too.
SELECT key | (effect - 1) FROM suppression WHERE effect > 0;

-- name: group_of
-- The group that a tenant has joined.
SELECT group_id FROM group_member WHERE tenant_id = $1;

-- name: join
-- A tenant is in a group from now on; runs under the head's lock, in the transaction that writes the entry.
INSERT INTO group_member (tenant_id, group_id, position) VALUES ($1, $2, $3);

-- name: first_join_out_of_force
-- The first entry, of those up to a position, of which the table of members says something else than the log.
WITH joins AS (SELECT position, tenant_id, list_id FROM suppression_log WHERE action = 5 AND position <= $1)
SELECT min(coalesce(joins.position, member.position))
FROM joins FULL JOIN group_member AS member USING (position)
WHERE coalesce(joins.position, member.position) <= $1
    AND (joins.tenant_id, joins.list_id) IS DISTINCT FROM (member.tenant_id, member.group_id)
