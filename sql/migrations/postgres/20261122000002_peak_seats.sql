-- What the job peak_seats writes: one row per subscription month and seat type (docs/semantics.md sections 6 and 7). No job
-- has written the table before. A month is replaced whole, so its grain is unique by construction: only what is read is indexed.
SET LOCAL lock_timeout = '10s';

DROP TABLE peak_seats;
CREATE TABLE peak_seats (
    billing_month TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    org_id TEXT COLLATE "C" NOT NULL,
    license_id TEXT COLLATE "C",
    plan TEXT COLLATE "C",
    seat_type TEXT COLLATE "C" NOT NULL,
    month_number INTEGER NOT NULL,
    period_start TIMESTAMPTZ NOT NULL,
    period_end TIMESTAMPTZ NOT NULL,
    period_last_date DATE NOT NULL,
    coverage TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    entry TEXT NOT NULL,
    peak_seats BIGINT NOT NULL,
    peak_at TIMESTAMPTZ,
    peak_event_id BIGINT,
    peak_carried_in BOOLEAN NOT NULL,
    seconds_at_peak BIGINT NOT NULL,
    opening_seats BIGINT,
    closing_seats BIGINT,
    min_seats BIGINT,
    avg_seats_micros BIGINT,
    committed_seats BIGINT,
    overage_seats BIGINT,
    term_number INTEGER NOT NULL,
    term_peak_seats BIGINT NOT NULL,
    ledger_rows BIGINT NOT NULL,
    correction_reason TEXT,
    as_of TIMESTAMPTZ NOT NULL
);
-- Serves the month that is replaced, and a subscription's row in it.
CREATE INDEX idx_peak_seats_billing_month ON peak_seats (billing_month, subscription_id);
