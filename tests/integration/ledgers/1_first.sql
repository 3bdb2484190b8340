-- What migrator keeps in the database it serves. Format 1; docs/ledger.md describes every column.
CREATE SCHEMA IF NOT EXISTS migrator;
COMMENT ON SCHEMA migrator IS 'The ledger of migrator: what was applied, built and undone';

CREATE TABLE migrator.format (version int PRIMARY KEY);
INSERT INTO migrator.format VALUES (1);

CREATE TABLE migrator.ledger (
    entry           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act             text NOT NULL CHECK (act IN ('up', 'rollback', 'cut-over', 'swap-back')),
    subject         text NOT NULL,
    run             uuid NOT NULL,
    message         text,
    phase           text CHECK (phase IN ('expand', 'contract')),
    revises         text,
    source_hash     text,
    rollback_script text,
    rollback_hash   text,
    irreversible    text,
    build           bigint,
    replaced_build  bigint,
    undoes          bigint UNIQUE REFERENCES migrator.ledger,
    reason          text,
    applied_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_ms     bigint NOT NULL,
    role            text NOT NULL DEFAULT session_user,
    client          text NOT NULL,
    git_sha         text,
    previous_hash   text NOT NULL,
    entry_hash      text NOT NULL UNIQUE,
    CHECK ((act IN ('rollback', 'swap-back')) = (undoes IS NOT NULL)),
    CHECK (undoes IS NULL OR reason <> '')
);

CREATE TABLE migrator.deployer (
    lock         text PRIMARY KEY,
    epoch        bigint NOT NULL,
    holder       text NOT NULL,
    since        timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE migrator.build (
    build           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection      text NOT NULL,
    state           text NOT NULL CHECK (state IN ('created', 'replaying', 'loaded', 'verified',
                                                   'live', 'archived', 'dropped', 'failed', 'aborted')),
    definition_hash text NOT NULL,
    target_schema   text NOT NULL,
    table_name      text NOT NULL,
    rows            bigint,
    report          jsonb,
    error           text,
    git_sha         text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX build_one_live ON migrator.build (projection) WHERE state = 'live';

CREATE TABLE migrator.position (
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
