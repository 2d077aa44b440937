-- State of the machine: runs, windows, locks, quarantine (docs/semantics.md sections 3 and 5).
CREATE TABLE job_run (
    run_id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    parent_run_id TEXT,
    "trigger" TEXT NOT NULL,
    scheduled_for TIMESTAMPTZ,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'success', 'failed', 'interrupted')),
    request TEXT NOT NULL,
    as_of TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    heartbeat_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    duration_ms BIGINT,
    windows_planned BIGINT NOT NULL,
    windows_done BIGINT NOT NULL,
    rows_in BIGINT NOT NULL,
    rows_out BIGINT NOT NULL,
    quarantined_count BIGINT NOT NULL,
    error_class TEXT,
    error_text TEXT,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    version TEXT NOT NULL
);
CREATE INDEX idx_job_run_job ON job_run (job, started_at);

CREATE TABLE job_window (
    job TEXT NOT NULL,
    window_start DATE NOT NULL,
    window_end DATE NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'done', 'failed', 'kept', 'future')),
    due_reason TEXT,
    error_text TEXT,
    run_id TEXT,
    write_count BIGINT NOT NULL DEFAULT 0,
    rows_in BIGINT NOT NULL DEFAULT 0,
    rows_out BIGINT NOT NULL DEFAULT 0,
    quarantined_count BIGINT NOT NULL DEFAULT 0,
    input_fingerprint TEXT,
    timezone TEXT NOT NULL,
    written_at TIMESTAMPTZ,
    PRIMARY KEY (job, window_start)
);

-- Who works on a job. The fence grows with every holder; a window is committed only under the newest.
CREATE TABLE job_lock (
    job TEXT PRIMARY KEY,
    run_id TEXT,
    fence BIGINT NOT NULL,
    acquired_at TIMESTAMPTZ
);

CREATE TABLE quarantined_event (
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    usage_date DATE,
    occurred_at TIMESTAMPTZ,
    reason TEXT NOT NULL,
    payload TEXT NOT NULL,
    first_seen_at TIMESTAMPTZ NOT NULL,
    run_id TEXT,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX idx_quarantined_event_date ON quarantined_event (usage_date);

CREATE TABLE schedule_state (
    job TEXT NOT NULL,
    scheduled_for TIMESTAMPTZ NOT NULL,
    state TEXT NOT NULL,
    run_id TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    claimed_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    PRIMARY KEY (job, scheduled_for)
);

CREATE TABLE snapshot_file (
    path TEXT PRIMARY KEY,
    billing_month TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    as_of TIMESTAMPTZ NOT NULL,
    published_at TIMESTAMPTZ NOT NULL
);
