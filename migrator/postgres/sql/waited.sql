-- Since when session %(pid)s waits for a lock, in milliseconds; no row where it does not.
SELECT l.waitstart, extract(epoch FROM clock_timestamp() - l.waitstart)::float8 * 1000
FROM pg_locks AS l WHERE l.pid = %(pid)s AND NOT l.granted AND l.waitstart IS NOT NULL
