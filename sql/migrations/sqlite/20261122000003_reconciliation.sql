-- What the last reconciliation found (docs/semantics.md section 9): one row for each pair of numbers that differ.
CREATE TABLE reconciliation (
    check_name TEXT NOT NULL,
    window_name TEXT NOT NULL,
    subject TEXT NOT NULL,
    expected TEXT NOT NULL,
    found TEXT NOT NULL,
    query TEXT NOT NULL,
    as_of TEXT NOT NULL,
    PRIMARY KEY (check_name, window_name, subject)
) STRICT;
