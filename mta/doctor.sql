-- The statements of mta/doctor.py.

-- name: state
-- What the database server says about itself.
SELECT current_setting('server_version_num')::integer AS version, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes, clock_timestamp() AS now,
    pg_database_size(current_database()) AS bytes,
    (SELECT count(*) FROM worker WHERE heartbeat_at > clock_timestamp() - interval '1 minute') AS workers,
    (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()) AS oldest_transaction_seconds;

-- name: oldest_writer
-- The oldest transaction with a number, in whatever database of the server: no event that is younger is shown before it ends.
SELECT database, extract(epoch FROM clock_timestamp() - began)::float8 AS seconds
FROM (
    SELECT datname, xact_start FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    UNION ALL
    SELECT database, prepared FROM pg_prepared_xacts
) AS writer (database, began)
WHERE began IS NOT NULL
ORDER BY began
LIMIT 1;
