-- What files were imported into usage_event (docs/interface.md, "import"), so that an import can be taken out again.
CREATE TABLE usage_import (
    import_id TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    sha256 TEXT,
    mapping TEXT NOT NULL,
    row_count INTEGER NOT NULL,
    inserted_count INTEGER NOT NULL,
    bad_count INTEGER NOT NULL,
    imported_at TEXT NOT NULL,
    undone_at TEXT,
    replaced_by TEXT
) STRICT;
CREATE INDEX idx_usage_event_import ON usage_event (import_id) WHERE import_id IS NOT NULL;
