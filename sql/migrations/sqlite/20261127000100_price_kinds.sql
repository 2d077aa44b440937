-- Digests of the rules from before a price was of more than a model are held against what they were made from: no day is due by it.
UPDATE job_window SET input_fingerprint = 'v2 ' || input_fingerprint
WHERE job = 'usage_daily' AND input_fingerprint IS NOT NULL AND input_fingerprint NOT LIKE 'v1 %';
