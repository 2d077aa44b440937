-- Which job made which result table: a job replaces the rows of no other.
SET LOCAL lock_timeout = '10s';

CREATE TABLE tallyroll.result_table (
    table_name TEXT PRIMARY KEY,
    job TEXT NOT NULL
);

-- What jobs have written before has the job's name, unless the job says otherwise: that is handed over by a person.
INSERT INTO tallyroll.result_table (table_name, job)
SELECT DISTINCT job, job
FROM tallyroll.job_window
WHERE write_count > 0;
