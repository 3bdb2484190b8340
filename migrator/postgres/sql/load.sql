-- How loaded the server is: what its physical replicas lack, who works, and who waits for a lock.
-- A role that may not see other sessions gets nulls, which count as nothing. Neon lists no replica.
WITH replica AS (
    SELECT r.replay_lag, pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn) AS lag_bytes
    FROM pg_stat_replication AS r
    LEFT JOIN pg_replication_slots AS s ON s.active_pid = r.pid
    WHERE s.slot_type IS DISTINCT FROM 'logical' AND r.state = 'streaming'
)
SELECT (SELECT max(extract(epoch FROM replay_lag))::float8 FROM replica),
       (SELECT max(lag_bytes)::bigint FROM replica),
       count(*) FILTER (WHERE state = 'active' AND backend_type = 'client backend'),
       current_setting('max_connections')::int,
       count(*) FILTER (WHERE wait_event_type = 'Lock' AND datname = current_database())
FROM pg_stat_activity
WHERE pid <> pg_backend_pid();
