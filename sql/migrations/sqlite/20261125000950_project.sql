-- Which project this database is: finance files name it, so that another database does not write into their folder (docs/interface.md,
-- "Parquet for finance"). A copy of the database is the same project.
CREATE TABLE tallyroll_project (
    project_number INTEGER PRIMARY KEY DEFAULT 1 CHECK (project_number = 1),
    project_id TEXT NOT NULL
) STRICT;
-- A random UUID, version 4.
INSERT INTO tallyroll_project (project_id)
SELECT lower(
    substr(digits, 1, 8) || '-' || substr(digits, 9, 4) || '-4' || substr(digits, 14, 3) || '-'
    || substr('89ab', 1 + abs(random() % 4), 1) || substr(digits, 18, 3) || '-' || substr(digits, 21, 12)
)
FROM (SELECT hex(randomblob(16)) AS digits);
