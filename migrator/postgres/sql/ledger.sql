-- What migrator keeps in the database it serves. Format 1; docs/ledger.md describes every column.
-- Run anew on an older layout it makes the tables that this one lacks; layout.py adds the columns.
CREATE SCHEMA IF NOT EXISTS migrator;
COMMENT ON SCHEMA migrator IS 'The ledger of migrator: what was applied, built and undone';

CREATE TABLE IF NOT EXISTS migrator.format (version int PRIMARY KEY);
INSERT INTO migrator.format VALUES (1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS migrator.ledger (
    entry           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act             text NOT NULL CHECK (act IN ('up', 'baseline', 'rollback', 'repair',
                                                'cut-over', 'swap-back')),
    subject         text NOT NULL,
    run             uuid NOT NULL,
    message         text,
    phase           text CHECK (phase IN ('expand', 'contract')),
    revises         text,
    source_hash     text,
    sql_hash        text,
    rollback_script text,
    rollback_hash   text,
    irreversible    text,
    build           bigint,
    replaced_build  bigint,
    undoes          bigint UNIQUE REFERENCES migrator.ledger,
    reason          text,
    allowed         text[],
    retries         int,
    lock_wait_ms    bigint,
    applied_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms     bigint NOT NULL,
    role            text NOT NULL DEFAULT session_user,
    client          text NOT NULL,
    git_sha         text,
    previous_hash   text NOT NULL,
    entry_hash      text NOT NULL UNIQUE,
    CHECK ((act IN ('rollback', 'swap-back')) = (undoes IS NOT NULL)),
    CHECK (undoes IS NULL AND allowed IS NULL AND act <> 'repair' OR reason <> '')
);

CREATE TABLE IF NOT EXISTS migrator.deployer (
    lock         text PRIMARY KEY,
    epoch        bigint NOT NULL,
    holder       text NOT NULL,
    since        timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS migrator.committed (
    revision       text NOT NULL,
    position       int NOT NULL,
    statement      text NOT NULL,
    statement_hash text NOT NULL,
    is_committed   boolean NOT NULL,
    needs_session  boolean NOT NULL,
    run            uuid NOT NULL,
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (revision, position)
);

CREATE TABLE IF NOT EXISTS migrator.build (
    build           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection      text NOT NULL,
    state           text NOT NULL CHECK (state IN ('created', 'replaying', 'loaded', 'verified',
                                                   'live', 'archived', 'dropped', 'failed', 'aborted')),
    definition_hash text NOT NULL,
    definition_parts jsonb,
    target_schema   text NOT NULL,
    table_name      text NOT NULL,
    rows            bigint,
    report          jsonb,
    error           text,
    allowed         text[],
    git_sha         text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX IF NOT EXISTS build_one_live ON migrator.build (projection) WHERE state = 'live';

CREATE TABLE IF NOT EXISTS migrator.position (
    build       bigint NOT NULL REFERENCES migrator.build,
    topic       text NOT NULL,
    partition   int NOT NULL,
    topic_id    text NOT NULL,
    next_offset bigint NOT NULL,
    end_offset  bigint NOT NULL,
    events      bigint NOT NULL DEFAULT 0,
    rows        bigint NOT NULL DEFAULT 0,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (build, topic, partition)
);

CREATE TABLE IF NOT EXISTS migrator.progress (
    build        bigint NOT NULL REFERENCES migrator.build,
    topic        text NOT NULL,
    partition    int NOT NULL,
    next_offset  bigint NOT NULL,
    end_offset   bigint NOT NULL,
    events_per_s double precision,
    seconds_left double precision,
    heard_at     timestamptz NOT NULL,
    PRIMARY KEY (build, topic, partition)
);

CREATE TABLE IF NOT EXISTS migrator.quarantine (
    entry          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    build          bigint NOT NULL REFERENCES migrator.build,
    topic          text NOT NULL,
    partition      int NOT NULL,
    event_offset   bigint NOT NULL,
    key            bytea,
    headers        jsonb NOT NULL,
    value          bytea,
    event_time     timestamptz,
    event_type     text,
    error          text NOT NULL,
    held_behind    bigint,
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at    timestamptz,
    released_by    text,
    reason         text,
    UNIQUE (build, topic, partition, event_offset)
);

CREATE TABLE IF NOT EXISTS migrator.backfill (
    backfill        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL,
    revision        text,
    table_name      text NOT NULL,
    definition_hash text NOT NULL,
    pass            int NOT NULL DEFAULT 1,
    last_key        jsonb,
    end_key         jsonb,
    rows_done       bigint NOT NULL DEFAULT 0,
    rows_read       bigint NOT NULL DEFAULT 0,
    done_in_pass    bigint NOT NULL DEFAULT 0,
    batch           int NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS backfill_one_unfinished ON migrator.backfill (name) WHERE finished_at IS NULL;

CREATE TABLE IF NOT EXISTS migrator.rehearsal (
    rehearsal    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_hash    text NOT NULL,
    outcome      text NOT NULL CHECK (outcome IN ('passed', 'failed')),
    report       jsonb NOT NULL,
    rehearsed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms  bigint NOT NULL,
    role         text NOT NULL DEFAULT session_user,
    client       text NOT NULL,
    git_sha      text
);

-- For projectors in any language; docs/follow.md is their contract. Errors have codes of their own.
CREATE OR REPLACE FUNCTION migrator.assert_writer(projection text, definition_hash text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    live record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'this transaction is %, which would not see a swap that it has waited for',
            current_setting('transaction_isolation')
            USING ERRCODE = 'MG004', HINT = 'begin it as READ COMMITTED';
    END IF;
    -- A swap takes it exclusively: it waits for us, or we for it.
    PERFORM pg_advisory_xact_lock_shared(hashtext('migrator:writer'), hashtext(assert_writer.projection));
    -- A statement of its own, and so with a snapshot that is younger than the wait.
    SELECT b.build, b.definition_hash INTO live
    FROM migrator.build AS b
    WHERE b.projection = assert_writer.projection AND b.state = 'live';
    IF live.build IS NULL THEN
        RAISE EXCEPTION 'no build of % is live', assert_writer.projection
            USING ERRCODE = 'MG002', HINT = 'migrator rebuild-projections makes one';
    END IF;
    IF live.definition_hash IS DISTINCT FROM assert_writer.definition_hash THEN
        RAISE EXCEPTION 'build % of % is live, of definition %', live.build, assert_writer.projection,
            live.definition_hash
            USING ERRCODE = 'MG001', DETAIL = 'this projector is of definition '
                || coalesce(assert_writer.definition_hash, 'null'),
            HINT = 'a projector of another definition may not write: let it stop, or wait';
    END IF;
    RETURN live.build;
END
$$;

CREATE OR REPLACE FUNCTION migrator.advance(build bigint, topic text, partition int,
    expected_next_offset bigint, next_offset bigint, events bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE migrator.position AS p
    SET next_offset = advance.next_offset,
        end_offset = greatest(p.end_offset, advance.next_offset),
        events = p.events + coalesce(advance.events, advance.next_offset - advance.expected_next_offset),
        changed_at = clock_timestamp()
    WHERE p.build = advance.build AND p.topic = advance.topic AND p.partition = advance.partition
      AND p.next_offset = advance.expected_next_offset
      AND advance.next_offset >= advance.expected_next_offset;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'partition % of topic % is not at offset % in build %', advance.partition,
            advance.topic, advance.expected_next_offset, advance.build
            USING ERRCODE = 'MG003',
            HINT = 'another projector has moved it: roll back, read migrator.position, and go on from there';
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS migrator.checkpoint (
    checkpoint   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    state        text NOT NULL CHECK (state IN ('creating', 'ready', 'deleted')),
    provider     text NOT NULL CHECK (provider IN ('neon', 'postgresql')),
    branch_id    text,
    taken_at     timestamptz NOT NULL,
    lsn          pg_lsn NOT NULL,
    revision     text,
    ledger_entry bigint,
    ledger_hash  text,
    builds       jsonb NOT NULL,
    expires_at   timestamptz,
    client       text NOT NULL,
    git_sha      text,
    restored_at  timestamptz,
    restored_by  text,
    reason       text,
    kept_as      text,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX IF NOT EXISTS checkpoint_one_of_a_name ON migrator.checkpoint (name) WHERE state <> 'deleted';

CREATE TABLE IF NOT EXISTS migrator.deployment (
    deployment bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run        uuid NOT NULL UNIQUE,
    phase      text NOT NULL CHECK (phase IN ('expand', 'contract')),
    state      text NOT NULL CHECK (state IN ('running', 'stopped', 'rolling-back', 'done', 'failed',
                                              'rolled-back', 'rollback-failed', 'abandoned')),
    step       text,
    plan_hash  text NOT NULL,
    plan       jsonb NOT NULL,
    error      text,
    reason     text,
    allowed    text[],
    role       text NOT NULL DEFAULT session_user,
    client     text NOT NULL,
    git_sha    text,
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS deployment_one_unfinished ON migrator.deployment ((true)) WHERE ended_at IS NULL;

CREATE TABLE IF NOT EXISTS migrator.deployment_step (
    deployment bigint NOT NULL REFERENCES migrator.deployment,
    step       text NOT NULL,
    position   int NOT NULL,
    outcome    text CHECK (outcome IN ('done', 'skipped', 'failed')),
    said       text,
    detail     jsonb,
    attempts   int NOT NULL DEFAULT 1,
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    PRIMARY KEY (deployment, step)
);
