BEGIN;
SET LOCAL lock_timeout = {{lock_timeout}};
DO $migrator$
DECLARE
    newest record;
    heads text[];
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
    IF NOT {{lock}}(hashtextextended('migrator:lock:deploy', 0)) THEN
        RAISE EXCEPTION 'another run of migrator holds the deployer lock'
            USING HINT = 'wait for it: SELECT holder, since FROM migrator.deployer';
    END IF;
    LOCK TABLE migrator.ledger IN SHARE ROW EXCLUSIVE MODE;
    IF (SELECT max(version) FROM migrator.format) <> {{format}} THEN
        RAISE EXCEPTION 'the ledger is of another format than {{format}}'
            USING HINT = 'export the scripts anew with the migrator that wrote it';
    END IF;
    SELECT l.* INTO newest FROM migrator.ledger AS l
     WHERE l.act IN ('up', 'baseline')
       AND NOT EXISTS (SELECT FROM migrator.ledger AS u WHERE u.undoes = l.entry)
     ORDER BY l.entry DESC LIMIT 1;
    IF newest.entry IS DISTINCT FROM {{entry}} OR newest.entry_hash IS DISTINCT FROM {{entry_hash}} THEN
        RAISE EXCEPTION 'the newest revision in the ledger is % (entry %), not {{revision}} (entry {{entry}})',
            coalesce(newest.subject, 'none'), coalesce(newest.entry::text, 'none')
            USING HINT = 'run the scripts in the order of index.md, each once, on the database '
                         'they were exported from; export anew after each migrator up';
    END IF;
    heads := ARRAY(SELECT version_num::text FROM {{version_table}});
    IF NOT (heads @> {{before}} AND heads <@ {{before}}) THEN
        RAISE EXCEPTION '{{version_table}} names %, not %', heads, {{before}}
            USING HINT = 'somebody has changed it by hand: find out who before you go on';
    END IF;
    IF encode(sha256(convert_to(newest.rollback_script, 'UTF8')), 'hex') <> {{rollback_hash}}
       OR newest.rollback_hash <> {{rollback_hash}} THEN
        RAISE EXCEPTION 'the rollback script of {{revision}} in the ledger is tampered';
    END IF;
    IF current_setting('migrator.script_hash') <> {{rollback_hash}} THEN
        RAISE EXCEPTION 'the script in {{file}} is tampered: it is not the one that the ledger keeps'
            USING HINT = 'export it anew: migrator rollback --export DIR';
    END IF;
    -- A run of migrator that has lost its lock commits nothing from here on.
    INSERT INTO migrator.deployer AS d (lock, epoch, holder) VALUES ('deploy', 1, 'psql, {{file}}')
        ON CONFLICT (lock) DO UPDATE SET epoch = d.epoch + 1, holder = excluded.holder,
            since = clock_timestamp(), heartbeat_at = clock_timestamp();
END
$migrator$;
