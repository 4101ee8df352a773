-- The statements of suppression/feed.py.

-- name: head
-- The newest position and its hash, and whether this server takes writes: a standby's head proves nothing.
SELECT position, hash, pg_is_in_recovery() FROM suppression_head;

-- name: steps_after
-- What the index needs of the log, from a position on.
SELECT position, at, action, key, effect, previous, hash
FROM suppression_log WHERE position > $1 ORDER BY position LIMIT $2;

-- name: hash_at
-- The hash of one entry.
SELECT hash FROM suppression_log WHERE position = $1;
