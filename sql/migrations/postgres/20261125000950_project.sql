-- Which project this database is: finance files name it, so that another database does not write into their folder (docs/interface.md,
-- "Parquet for finance"). A copy of the database is the same project.
SET LOCAL lock_timeout = '10s';

CREATE TABLE tallyroll.tallyroll_project (
    project_number INTEGER PRIMARY KEY DEFAULT 1 CHECK (project_number = 1),
    project_id TEXT NOT NULL
);
INSERT INTO tallyroll.tallyroll_project (project_id) VALUES (pg_catalog.gen_random_uuid()::TEXT);
