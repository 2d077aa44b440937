-- Slots of schedules and notices of them (`schedule_state`, `schedule_notice`), as `src/scheduler/claim.rs` reads and writes them.

-- name: known
SELECT
    (SELECT MAX(scheduled_for) FROM schedule_state WHERE job = $1 AND scheduled_for <= $2) AS latest,
    (SELECT COUNT(*) FROM schedule_state WHERE job = $1 AND state = 'running') AS running_count,
    (
        SELECT finished_at
        FROM schedule_state
        WHERE job = $1 AND finished_at IS NOT NULL
        ORDER BY scheduled_for DESC
        LIMIT 1
    ) AS finished_at;

-- name: first_seen
INSERT INTO schedule_state (job, scheduled_for, state, claimed_at, finished_at)
VALUES ($1, $2, 'first_seen', $3, $3)
ON CONFLICT DO NOTHING;

-- name: insert
INSERT INTO schedule_state (job, scheduled_for, state, attempt, claimed_at, finished_at, claim_id, heartbeat_at, host, pid)
VALUES ($1, $2, $3, 0, $4, $5, $6, $4, $7, $8)
ON CONFLICT DO NOTHING;

-- name: claims
SELECT
    claim_id,
    host,
    pid,
    MAX(heartbeat_at) AS heartbeat_at
FROM schedule_state
WHERE job = $1 AND state = 'running'
GROUP BY claim_id, host, pid
ORDER BY MIN(scheduled_for);

-- name: take_over
-- One statement: of several schedulers that find a dead claim, one gets all of its slots.
UPDATE schedule_state
SET claim_id = $3, heartbeat_at = $4, host = $5, pid = $6
WHERE job = $1 AND claim_id = $2 AND state = 'running';

-- name: slots_of
SELECT scheduled_for, attempt
FROM schedule_state
WHERE claim_id = $1 AND state = 'running'
ORDER BY scheduled_for;

-- name: begin
UPDATE schedule_state
SET attempt = $4
WHERE job = $1 AND scheduled_for = $2 AND claim_id = $3 AND state = 'running';

-- name: uncount_attempt
UPDATE schedule_state
SET attempt = attempt - 1
WHERE claim_id = $1 AND scheduled_for = $2 AND state = 'running';

-- name: beat
UPDATE schedule_state
SET heartbeat_at = $2
WHERE claim_id = $1 AND state = 'running';

-- name: finish
UPDATE schedule_state
SET state = $4, finished_at = $5, run_id = $6, error_text = $7
WHERE job = $1 AND scheduled_for = $2 AND claim_id = $3 AND state = 'running';

-- name: last_ended
SELECT state
FROM schedule_state
WHERE job = $1 AND scheduled_for < $2 AND state IN ('success', 'failed')
ORDER BY scheduled_for DESC
LIMIT 1;

-- name: notice
INSERT INTO schedule_notice (job, scheduled_for, kind, noticed_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING;

-- name: told_since
SELECT 1 AS told
FROM schedule_notice
WHERE job = $1 AND kind = $2 AND noticed_at > $3;

-- name: overdue_told
-- Since the last success; `$2` stands for the time before there was any.
SELECT 1 AS told
FROM schedule_notice
WHERE job = $1
    AND kind = 'overdue'
    AND scheduled_for > COALESCE((SELECT MAX(scheduled_for) FROM schedule_state WHERE job = $1 AND state = 'success'), $2);

-- name: forget_slots
DELETE FROM schedule_state
WHERE scheduled_for < $1
    AND state <> 'running'
    AND scheduled_for < (SELECT MAX(newest.scheduled_for) FROM schedule_state AS newest WHERE newest.job = schedule_state.job);

-- name: forget_notices
DELETE FROM schedule_notice
WHERE scheduled_for < $1;
