BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL search_path = pg_catalog;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = {{statement_timeout}};
DO $migrator$
DECLARE
    m_newest record;
    m_build record;
    m_live oid;
    m_archived oid;
    m_hanging text;
    m_grants text[];
    m_statement text;
    m_stop timestamptz;
BEGIN
    IF btrim(current_setting('migrator.reason')) = '' THEN
        RAISE EXCEPTION 'the reason is empty'
            USING HINT = 'say why: psql -v reason=... -f {{file}}';
    END IF;
    IF current_setting('server_encoding') <> 'UTF8'
       AND current_setting('migrator.reason') ~ '[^ -~]' THEN
        RAISE EXCEPTION 'the reason holds more than ASCII, and this database is not in UTF8';
    END IF;
    IF to_regclass('migrator.ledger') IS NULL THEN
        RAISE EXCEPTION 'this database has no ledger'
            USING HINT = 'this script is for the database it was exported from: check the connection';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('migrator:lock:deploy', 0)) THEN
        RAISE EXCEPTION 'another run of migrator holds the deployer lock'
            USING HINT = 'wait for it: SELECT holder, since FROM migrator.deployer';
    END IF;
    IF (SELECT max(version) FROM migrator.format) <> {{format}} THEN
        RAISE EXCEPTION 'the ledger is of another format than {{format}}'
            USING HINT = 'export the scripts anew with the migrator that wrote it';
    END IF;
    SELECT l.* INTO m_newest FROM migrator.ledger AS l
     WHERE l.act = 'cut-over' AND l.subject = {{projection}}
       AND NOT EXISTS (SELECT FROM migrator.ledger AS u WHERE u.undoes = l.entry)
     ORDER BY l.entry DESC LIMIT 1;
    IF m_newest.entry IS DISTINCT FROM {{entry}} OR m_newest.entry_hash IS DISTINCT FROM {{entry_hash}} THEN
        RAISE EXCEPTION 'the last cut-over of % that stands is entry %, not entry {{entry}}',
            {{projection}}, coalesce(m_newest.entry::text, 'none')
            USING HINT = 'it was swapped back already, cut over anew, or this is another database: '
                         'export anew with migrator rollback --export DIR';
    END IF;
    m_stop := clock_timestamp() + {{deadline}}::interval;
    LOOP
        BEGIN
            -- Projectors end their batch; who comes after us goes on with what is live then.
            PERFORM set_config('lock_timeout', {{autovacuum_timeout}}, true);
            PERFORM pg_advisory_xact_lock(hashtext('migrator:writer'), hashtext({{projection}}));
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF clock_timestamp() > m_stop THEN
                RAISE EXCEPTION 'a projector of % did not end its batch within {{deadline_said}}', {{projection}}
                    USING HINT = 'stop migrator follow, or the session that holds the lock, and run this again';
            END IF;
            PERFORM pg_sleep(0.1 + random() * 0.7);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM FROM migrator.build WHERE build IN ({{incoming}}, {{outgoing}}) ORDER BY build FOR UPDATE;
    FOR m_build IN
        SELECT w.number, w.wanted, w.hash, b.state, b.definition_hash
          FROM (VALUES ({{incoming}}::bigint, 'archived', {{incoming_hash}}),
                       ({{outgoing}}::bigint, 'live', {{outgoing_hash}})) AS w (number, wanted, hash)
          LEFT JOIN migrator.build AS b ON b.build = w.number
         ORDER BY w.number
    LOOP
        IF m_build.state IS DISTINCT FROM m_build.wanted THEN
            RAISE EXCEPTION 'build % of % is %, not %', m_build.number, {{projection}},
                coalesce(m_build.state, 'gone'), m_build.wanted
                USING HINT = 'the builds have moved on since the export: SELECT * FROM migrator.build';
        END IF;
        IF m_build.definition_hash <> m_build.hash THEN
            RAISE EXCEPTION 'build % of % has another definition than the one exported',
                m_build.number, {{projection}};
        END IF;
    END LOOP;
    IF to_regclass({{live_table}}) IS NULL OR to_regclass({{archived_table}}) IS NULL THEN
        RAISE EXCEPTION 'table % is not there',
            CASE WHEN to_regclass({{live_table}}) IS NULL THEN {{live_said}} ELSE {{archived_said}} END
            USING HINT = 'without it there is nothing to swap: migrator rebuild-projections builds it anew';
    END IF;
    LOOP
        BEGIN
            -- The ledger before the tables: whoever waits for it must not hold them. Autovacuum yields
            -- to a waiter once deadlock_timeout has passed.
            PERFORM set_config('lock_timeout', {{autovacuum_timeout}}, true);
            LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE {{live_name}}, {{archived_name}} IN SHARE UPDATE EXCLUSIVE MODE;
            -- This bounds what a reader may wait for us.
            PERFORM set_config('lock_timeout', {{lock_timeout}}, true);
            LOCK TABLE {{live_name}}, {{archived_name}} IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF clock_timestamp() > m_stop THEN
                RAISE EXCEPTION 'the tables of % were not free within {{deadline_said}}', {{projection}}
                    USING HINT = 'a transaction stays open on them: end it or wait, then run this again';
            END IF;
            PERFORM pg_sleep(0.1 + random() * 0.7);
        END;
    END LOOP;
    m_live := to_regclass({{live_table}});
    m_archived := to_regclass({{archived_table}});
    SELECT string_agg(attachment, ', ') INTO m_hanging FROM ({{attachments}}) AS hanging_on_it;
    IF m_hanging IS NOT NULL THEN
        RAISE EXCEPTION 'a swap would leave behind what hangs on %: %', {{live_said}}, m_hanging
            USING HINT = 'only migrator rollback carries it over; for this script drop it, run this '
                         'again, and create it anew afterwards';
    END IF;
    SELECT string_agg(attachment, ', ') INTO m_hanging FROM ({{archived_attachments}}) AS hanging_on_it;
    IF m_hanging IS NOT NULL THEN
        RAISE EXCEPTION 'the live table has no longer what hangs on %: %', {{archived_said}}, m_hanging
            USING HINT = 'only migrator rollback settles that; for this script drop it there, and run '
                         'this again';
    END IF;
    m_grants := ARRAY({{grants}});
    ALTER TABLE {{live_name}} SET SCHEMA {{outgoing_schema}};
    ALTER TABLE {{archived_name}} SET SCHEMA {{target_schema}};
    FOREACH m_statement IN ARRAY m_grants LOOP
        EXECUTE m_statement;
    END LOOP;
    UPDATE migrator.build SET state = 'archived', changed_at = clock_timestamp() WHERE build = {{outgoing}};
    UPDATE migrator.build SET state = 'live', changed_at = clock_timestamp() WHERE build = {{incoming}};
    -- A run of migrator that has lost its lock commits nothing from here on.
    INSERT INTO migrator.deployer AS d (lock, epoch, holder) VALUES ('deploy', 1, 'psql, {{file}}')
        ON CONFLICT (lock) DO UPDATE SET epoch = d.epoch + 1, holder = excluded.holder,
            since = clock_timestamp(), heartbeat_at = clock_timestamp();
END
$migrator$;
