-- State of the machine: runs, windows, locks, quarantine (docs/semantics.md sections 3 and 5).
CREATE TABLE job_run (
    run_id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    parent_run_id TEXT,
    "trigger" TEXT NOT NULL,
    scheduled_for TEXT,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'success', 'failed', 'interrupted')),
    request TEXT NOT NULL,
    as_of TEXT NOT NULL,
    started_at TEXT NOT NULL,
    heartbeat_at TEXT NOT NULL,
    finished_at TEXT,
    duration_ms INTEGER,
    windows_planned INTEGER NOT NULL,
    windows_done INTEGER NOT NULL,
    rows_in INTEGER NOT NULL,
    rows_out INTEGER NOT NULL,
    quarantined_count INTEGER NOT NULL,
    error_class TEXT,
    error_text TEXT,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL
) STRICT;
CREATE INDEX idx_job_run_job ON job_run (job, started_at);

CREATE TABLE job_window (
    job TEXT NOT NULL,
    window_start TEXT NOT NULL,
    window_end TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'done', 'failed', 'kept', 'future')),
    due_reason TEXT,
    error_text TEXT,
    run_id TEXT,
    write_count INTEGER NOT NULL DEFAULT 0,
    rows_in INTEGER NOT NULL DEFAULT 0,
    rows_out INTEGER NOT NULL DEFAULT 0,
    quarantined_count INTEGER NOT NULL DEFAULT 0,
    input_fingerprint TEXT,
    timezone TEXT NOT NULL,
    written_at TEXT,
    PRIMARY KEY (job, window_start)
) STRICT;

-- Who works on a job. The fence grows with every holder; a window is committed only under the newest.
CREATE TABLE job_lock (
    job TEXT PRIMARY KEY,
    run_id TEXT,
    fence INTEGER NOT NULL,
    acquired_at TEXT
) STRICT;

CREATE TABLE quarantined_event (
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    usage_date TEXT,
    occurred_at TEXT,
    reason TEXT NOT NULL,
    payload TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    run_id TEXT,
    PRIMARY KEY (source, event_id)
) STRICT;
CREATE INDEX idx_quarantined_event_date ON quarantined_event (usage_date);

CREATE TABLE schedule_state (
    job TEXT NOT NULL,
    scheduled_for TEXT NOT NULL,
    state TEXT NOT NULL,
    run_id TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    claimed_at TEXT NOT NULL,
    finished_at TEXT,
    PRIMARY KEY (job, scheduled_for)
) STRICT;

CREATE TABLE snapshot_file (
    path TEXT PRIMARY KEY,
    billing_month TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    as_of TEXT NOT NULL,
    published_at TEXT NOT NULL
) STRICT;
