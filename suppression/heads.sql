-- The statements of suppression/heads.py.

-- name: last_signed_at
-- When the newest signed head was written; runs under the log head's lock.
SELECT at FROM suppression_log WHERE action = 4 ORDER BY position DESC LIMIT 1;
