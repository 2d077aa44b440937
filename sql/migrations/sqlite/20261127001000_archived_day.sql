-- UTC days of a source whose rows are in the lake (docs/semantics.md section 10): each revision of a day, and whether its rows were deleted
-- from the tables, so that they are read from the lake alone.
CREATE TABLE archived_day (
    source TEXT NOT NULL,
    event_date TEXT NOT NULL,
    revision INTEGER NOT NULL,
    is_deleted INTEGER NOT NULL,
    event_count INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    archived_at TEXT NOT NULL,
    PRIMARY KEY (source, event_date, revision)
) STRICT;

-- Revisions whose files may be removed: a run was about to write them, or they are no longer what a day is read from.
CREATE TABLE archive_leftover (
    source TEXT NOT NULL,
    event_date TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (source, event_date, revision)
) STRICT;
