-- The statements of suppression/feed.py.

-- name: head
-- The newest position and its hash, the newest join of a group, and whether this server takes writes: a standby's head
-- proves nothing.
SELECT position, hash, (SELECT coalesce(max(position), 0) FROM group_member), pg_is_in_recovery() FROM suppression_head;

-- name: members
-- Which tenants are in which groups, and since when.
SELECT member.position, log.at, member.tenant_id, member.group_id
FROM group_member AS member JOIN suppression_log AS log USING (position);

-- name: steps_after
-- What the index needs of the log, from a position on.
SELECT position, at, action, key, effect, previous, hash
FROM suppression_log WHERE position > $1 ORDER BY position LIMIT $2;

-- name: hash_at
-- The hash of one entry.
SELECT hash FROM suppression_log WHERE position = $1;
