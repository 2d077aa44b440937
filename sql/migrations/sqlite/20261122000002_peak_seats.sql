-- What the job peak_seats writes: one row per subscription month and seat type (docs/semantics.md sections 6 and 7). No job
-- has written the table before. A month is replaced whole, so its grain is unique by construction: only what is read is indexed.
DROP TABLE peak_seats;
CREATE TABLE peak_seats (
    billing_month TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    license_id TEXT,
    plan TEXT,
    seat_type TEXT NOT NULL,
    month_number INTEGER NOT NULL,
    period_start TEXT NOT NULL,
    period_end TEXT NOT NULL,
    period_last_date TEXT NOT NULL,
    coverage TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    entry TEXT NOT NULL,
    peak_seats INTEGER NOT NULL,
    peak_at TEXT,
    peak_event_id INTEGER,
    peak_carried_in INTEGER NOT NULL,
    seconds_at_peak INTEGER NOT NULL,
    opening_seats INTEGER,
    closing_seats INTEGER,
    min_seats INTEGER,
    avg_seats_micros INTEGER,
    committed_seats INTEGER,
    overage_seats INTEGER,
    term_number INTEGER NOT NULL,
    term_peak_seats INTEGER NOT NULL,
    ledger_rows INTEGER NOT NULL,
    correction_reason TEXT,
    as_of TEXT NOT NULL
) STRICT;
-- Serves the month that is replaced, and a subscription's row in it.
CREATE INDEX idx_peak_seats_billing_month ON peak_seats (billing_month, subscription_id);
