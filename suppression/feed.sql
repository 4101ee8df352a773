-- The statements of suppression/feed.py.

-- name: news
-- The newest position and its hash, the newest join of a group, whether this server takes writes (a standby's head proves
-- nothing), and beside that what the index needs of the next entries behind a position: one row each, or one without.
SELECT head.position, head.hash, (SELECT coalesce(max(position), 0) FROM group_member), pg_is_in_recovery(), step.*
FROM suppression_head AS head LEFT JOIN LATERAL (
    SELECT position, at, action, key, effect, previous, hash
    FROM suppression_log WHERE position > $1 ORDER BY position LIMIT $2
) AS step ON true
ORDER BY step.position;

-- name: members
-- Which tenants are in which groups, and since when.
SELECT member.position, log.at, member.tenant_id, member.group_id
FROM group_member AS member JOIN suppression_log AS log USING (position);

-- name: hash_at
-- The hash of one entry.
SELECT hash FROM suppression_log WHERE position = $1;
