-- Schedules: who works on a slot, what came of it, what was told of it; and the log lines of a run.
ALTER TABLE schedule_state ADD COLUMN claim_id TEXT;
ALTER TABLE schedule_state ADD COLUMN heartbeat_at TEXT;
ALTER TABLE schedule_state ADD COLUMN host TEXT;
ALTER TABLE schedule_state ADD COLUMN pid INTEGER;
ALTER TABLE schedule_state ADD COLUMN error_text TEXT;

-- What a tick asks for every few seconds.
CREATE INDEX idx_schedule_state_scheduled_for ON schedule_state (scheduled_for);
CREATE INDEX idx_schedule_state_running ON schedule_state (job) WHERE state = 'running';

ALTER TABLE job_run ADD COLUMN log TEXT;
CREATE INDEX idx_job_run_started ON job_run (started_at);

-- One row per thing told about a slot: several schedulers tell it once.
CREATE TABLE schedule_notice (
    job TEXT NOT NULL,
    scheduled_for TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('failed', 'recovered', 'overdue')),
    noticed_at TEXT NOT NULL,
    PRIMARY KEY (job, scheduled_for, kind)
) STRICT;
