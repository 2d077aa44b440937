-- Which job made which result table: a job replaces the rows of no other.
CREATE TABLE result_table (
    table_name TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
    job TEXT NOT NULL,
    -- The text of its CREATE TABLE: another table of that name has another. NULL of one that a person handed over.
    made_as TEXT
) STRICT;

-- What jobs have written before has the job's name, unless the job says otherwise: that is handed over by a person.
INSERT OR IGNORE INTO result_table (table_name, job, made_as)
SELECT DISTINCT job, job, (SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = job COLLATE NOCASE)
FROM job_window
WHERE write_count > 0;
