-- What a window's result was made by, so that an edited SELECT makes it due, and what its measures came to, so that rows that somebody
-- changed are found. NULL: written before either was kept.
SET LOCAL lock_timeout = '10s';
ALTER TABLE tallyroll.job_window ADD COLUMN definition TEXT, ADD COLUMN content TEXT;
