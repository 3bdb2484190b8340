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
    m_columns text[];
    m_types text[];
    m_made text[];
    m_before text[];
    m_during jsonb;
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
    m_live := to_regclass({{live_table}});
    m_archived := to_regclass({{archived_table}});
    LOOP
        BEGIN
            -- The ledger before the tables: whoever waits for it must not hold them. Autovacuum yields
            -- to a waiter once deadlock_timeout has passed.
            PERFORM set_config('lock_timeout', {{autovacuum_timeout}}, true);
            LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE {{live_name}}, {{archived_name}} IN SHARE UPDATE EXCLUSIVE MODE;
            SELECT array_agg(attname::text ORDER BY attnum), array_agg(format_type(atttypid, atttypmod) ORDER BY attnum)
              INTO m_columns, m_types
              FROM pg_attribute WHERE attrelid = m_archived AND attnum > 0 AND NOT attisdropped;
            SELECT coalesce((SELECT array_agg(value) FROM jsonb_array_elements_text(
                       obj_description(to_regnamespace({{outgoing_said}}), 'pg_namespace')::jsonb -> 'names')), '{}')
              INTO m_made;
            SELECT string_agg(object || ': ' || remedy, '; ') INTO m_hanging FROM (
                SELECT * FROM ({{uncarried}}) AS uncarried
                UNION ALL
                SELECT object || ', whose column ' || attname || ' ' || becomes, 'drop it, or change it to do without'
                  FROM ({{misfits}}) AS misfit (object, attname, becomes, may_stay) WHERE NOT may_stay) AS hanging;
            IF m_hanging IS NOT NULL THEN
                RAISE EXCEPTION 'a swap would leave behind what hangs on %: %', {{live_said}}, m_hanging
                    USING HINT = 'do what stands there, and run this again';
            END IF;
            -- What the live table has beyond its definition, while nobody reads the archived one.
            m_before := ARRAY({{before}});
            FOREACH m_statement IN ARRAY m_before LOOP
                EXECUTE m_statement;
            END LOOP;
            SELECT coalesce(jsonb_object_agg(phase, statements), '{}') INTO m_during
              FROM (SELECT phase, jsonb_agg(statement ORDER BY n) AS statements
                      FROM (SELECT *, row_number() OVER () AS n FROM ({{during}}) AS d) AS d GROUP BY phase) AS p;
            -- This bounds what a reader may wait for us.
            PERFORM set_config('lock_timeout', {{lock_timeout}}, true);
            FOR m_statement IN SELECT jsonb_array_elements_text(m_during -> 'view') LOOP
                EXECUTE m_statement;
            END LOOP;
            FOR m_statement IN SELECT jsonb_array_elements_text(m_during -> 'lock') LOOP
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', m_statement);
            END LOOP;
            LOCK TABLE {{live_name}}, {{archived_name}} IN ACCESS EXCLUSIVE MODE;
            EXIT WHEN m_during = (
                SELECT coalesce(jsonb_object_agg(phase, statements), '{}')
                  FROM (SELECT phase, jsonb_agg(statement ORDER BY n) AS statements
                      FROM (SELECT *, row_number() OVER () AS n FROM ({{during}}) AS d) AS d GROUP BY phase) AS p);
            RAISE lock_not_available USING MESSAGE = 'what hangs on the table has changed meanwhile';
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF clock_timestamp() > m_stop THEN
                RAISE EXCEPTION 'the tables of % were not free within {{deadline_said}}', {{projection}}
                    USING HINT = 'a transaction stays open on them: end it or wait, then run this again';
            END IF;
            PERFORM pg_sleep(0.1 + random() * 0.7);
        END;
    END LOOP;
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR m_statement IN
        SELECT statement FROM (
            SELECT 1 AS step, place, statement FROM jsonb_array_elements_text(m_during -> 'drop') WITH ORDINALITY AS u (statement, place)
            UNION ALL SELECT 2, 1, {{parked}}
            UNION ALL SELECT 3, place, statement FROM jsonb_array_elements_text(m_during -> 'out') WITH ORDINALITY AS u (statement, place)
            UNION ALL SELECT 4, 1, {{brought}}
            UNION ALL SELECT 5, place, statement FROM jsonb_array_elements_text(m_during -> 'in') WITH ORDINALITY AS u (statement, place)
            UNION ALL SELECT 6, place, statement FROM unnest(ARRAY({{grants}})) WITH ORDINALITY AS u (statement, place)
            UNION ALL SELECT 7, place, statement FROM jsonb_array_elements_text(m_during -> 'make') WITH ORDINALITY AS u (statement, place)
        ) AS steps ORDER BY step, place
    LOOP
        EXECUTE m_statement;
    END LOOP;
    PERFORM set_config('migrator.validate', coalesce(m_during -> 'validate', '[]')::text, false);
    UPDATE migrator.build SET state = 'archived', changed_at = clock_timestamp() WHERE build = {{outgoing}};
    UPDATE migrator.build SET state = 'live', changed_at = clock_timestamp() WHERE build = {{incoming}};
    -- A run of migrator that has lost its lock commits nothing from here on.
    INSERT INTO migrator.deployer AS d (lock, epoch, holder) VALUES ('deploy', 1, 'psql, {{file}}')
        ON CONFLICT (lock) DO UPDATE SET epoch = d.epoch + 1, holder = excluded.holder,
            since = clock_timestamp(), heartbeat_at = clock_timestamp();
END
$migrator$;
