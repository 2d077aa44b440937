-- Which job made which result table: a job replaces the rows of no other.
CREATE TABLE result_table (
    table_name TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
    job TEXT NOT NULL
) STRICT;

-- What jobs have written before has the job's name, unless the job says otherwise: that is handed over by a person.
INSERT OR IGNORE INTO result_table (table_name, job)
SELECT DISTINCT job, job
FROM job_window
WHERE write_count > 0;
