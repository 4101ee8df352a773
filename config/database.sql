-- The statements of config/database.py.

-- name: server
-- The number of the server process that answers, and when it says that something is committed.
SELECT pg_backend_pid() AS pid, current_setting('synchronous_commit') AS synchronous_commit;

-- name: lock_migrations
-- Let one node at a time take a step; held until the transaction ends, because a session may not be ours alone.
SELECT pg_advisory_xact_lock($1);

-- name: create_migration_table
-- Where a database keeps what was done to it.
CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
-- Every migration that this database has.
SELECT number, name, sha256 FROM migration ORDER BY number;

-- name: record_migration
-- Mark a migration as applied, in its own transaction.
INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3);

-- name: wait_shortly
-- Give up a lock that can't be had soon; 0 would wait for ever.
SET LOCAL lock_timeout = '400ms';
