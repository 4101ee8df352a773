-- The statements of mta/doctor.py.

-- name: state
-- What the database server says about itself.
SELECT current_setting('server_version_num')::integer AS version, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes, clock_timestamp() AS now,
    pg_database_size(current_database()) AS bytes,
    (SELECT count(*) FROM worker WHERE heartbeat_at > clock_timestamp() - interval '1 minute') AS workers,
    (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()) AS oldest_transaction_seconds;
