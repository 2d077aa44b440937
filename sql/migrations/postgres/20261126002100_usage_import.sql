-- What files were imported into usage_event (docs/interface.md, "import"), so that an import can be taken out again.
SET LOCAL lock_timeout = '10s';

CREATE TABLE tallyroll.usage_import (
    import_id TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    sha256 TEXT,
    mapping TEXT NOT NULL,
    row_count BIGINT NOT NULL,
    inserted_count BIGINT NOT NULL,
    bad_count BIGINT NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL,
    undone_at TIMESTAMPTZ,
    replaced_by TEXT
);
CREATE INDEX idx_usage_event_import ON usage_event (import_id) WHERE import_id IS NOT NULL;
