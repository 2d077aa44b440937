-- The ledger is append-only also in a session that replicates, as its rows are stamped there.
ALTER TABLE seat_usage_event ENABLE ALWAYS TRIGGER tallyroll_append_only;
ALTER TABLE seat_usage_event ENABLE ALWAYS TRIGGER tallyroll_append_only_whole;
