-- UTC days of a source whose rows are in the lake (docs/semantics.md section 10): each revision of a day, and whether its rows were deleted
-- from the tables, so that they are read from the lake alone.
SET LOCAL lock_timeout = '10s';

CREATE TABLE tallyroll.archived_day (
    source TEXT NOT NULL,
    event_date DATE NOT NULL,
    revision INTEGER NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    event_count BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    archived_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, event_date, revision)
);

-- Revisions whose files may be removed: a run was about to write them, or they are no longer what a day is read from.
CREATE TABLE tallyroll.archive_leftover (
    source TEXT NOT NULL,
    event_date DATE NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (source, event_date, revision)
);
