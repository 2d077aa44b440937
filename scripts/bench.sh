#!/usr/bin/env bash
# Tallyroll against plain SQL inside the same PostgreSQL, in one run: `scripts/bench.sh [ROWS]`, 10 million unless said.
# Prints the whole backfill by both (ours makes two summaries and the dashboards besides), their ratio, peak memory, one more day, a tick with nothing due, and the same for SQLite at 2 million rows.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TALLYROLL_TEST_POSTGRES:-}" ]; then
  cargo build --release --quiet
  # What is built for use has none of the points at which tests kill.
  if grep -q TALLYROLL_ABORT "${CARGO_TARGET_DIR:-target}/release/tallyroll"; then echo "error: the release binary holds abort points" >&2; exit 1; fi
  # A server of ordinary size; both sides have the same.
  export TALLYROLL_POSTGRES_OPTIONS="-c shared_buffers=2GB -c work_mem=256MB -c maintenance_work_mem=512MB -c max_wal_size=8GB"
  exec scripts/postgres.sh "$0" "$@"
fi

rows=${1:-10000000}
tallyroll=${CARGO_TARGET_DIR:-target}/release/tallyroll
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DATABASE_URL=$TALLYROLL_TEST_POSTGRES
# An output belongs to one database, and this one is thrown away.
export TALLYROLL__OUTPUT__URL=$work/out
# What psql looks for is where Tallyroll keeps it.
export PGOPTIONS="-c search_path=public,tallyroll"
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
timed() { /usr/bin/env python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
seconds = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{seconds:.3f} {usage.ru_maxrss / 1024:.0f} {usage.ru_utime + usage.ru_stime:.2f} {code}")
PYTHON
}

echo "== loading $rows rows"
"$tallyroll" migrate >/dev/null
start=$(now)
psql -q -v ON_ERROR_STOP=1 -v rows="$rows" -f benches/load.sql
echo "loaded and indexed in $(since "$start") s"

echo "== Tallyroll: backfill of seven summaries and both dashboards"
read -r tallyroll_s memory_mb cpu_s code < <(timed "$tallyroll" run-job usage_daily --downstream --as-of 2026-04-20)
[ "$code" = 0 ] || { echo "the backfill ended with exit code $code"; exit 1; }
"$tallyroll" runs --limit 5 2>/dev/null

echo "== plain SQL: the same five tables"
psql -q -c CHECKPOINT
start=$(now)
psql -q -v ON_ERROR_STOP=1 -f benches/plain.sql
plain_s=$(since "$start")

echo "== the same rows?"
psql -q -v ON_ERROR_STOP=1 -A -t -F ' ' -f benches/compare.sql | tee "$work/compare"

echo "== one more day, $((rows / 90)) rows"
psql -q -v ON_ERROR_STOP=1 -c "INSERT INTO ai_usage_log (user_id, user_email, customer_id, customer_name, request_type, input_tokens, output_tokens, model_used, latency_ms, status, created_at)
  SELECT user_id, user_email, customer_id, customer_name, request_type, input_tokens, output_tokens, model_used, latency_ms, status, created_at + INTERVAL '1 day'
  FROM ai_usage_log WHERE created_at >= '2026-04-09' AND created_at < '2026-04-10'" -c "ANALYZE ai_usage_log"
read -r day_s _ _ code < <(timed "$tallyroll" run-job usage_daily --as-of 2026-04-20)
[ "$code" = 0 ]
read -r day_downstream_s _ _ code < <(timed "$tallyroll" run-job usage_daily --day 2026-04-10 --downstream --as-of 2026-04-20)
[ "$code" = 0 ]

echo "== nothing due"
for _ in 1 2 3 4 5; do read -r idle_s _ < <(timed "$tallyroll" run-job usage_daily --downstream --as-of 2026-04-20); echo "$idle_s"; done | sort -n | sed -n 3p >"$work/idle"

# The day by plain SQL: the same statements over its rows alone.
psql -q -c "DROP TABLE plain_daily, plain_daily_user, plain_daily_customer, plain_monthly_user, plain_monthly_customer"
sed "s/^FROM ai_usage_log\$/FROM ai_usage_log WHERE created_at >= '2026-04-10' AND created_at < '2026-04-11'/" benches/plain.sql >"$work/day.sql"
start=$(now)
psql -q -v ON_ERROR_STOP=1 -f "$work/day.sql" >/dev/null
plain_day_s=$(since "$start")

echo "== SQLite, 2,000,000 rows at most"
env -u TALLYROLL__OUTPUT__URL python3 benches/sqlite.py "$tallyroll" $((rows < 2000000 ? rows : 2000000)) | tee "$work/sqlite"

echo
echo "Tallyroll, everything         $tallyroll_s s ($(awk -v r="$rows" -v s="$tallyroll_s" 'BEGIN { printf "%.0f", r / s }') rows/s, $cpu_s s of its own CPU), peak memory $memory_mb MB"
echo "plain SQL, five summaries     $plain_s s"
echo "ratio                         $(awk -v a="$tallyroll_s" -v b="$plain_s" 'BEGIN { printf "%.2f", a / b }')"
echo "one more day, usage_daily     $day_s s"
echo "the same by plain SQL         $plain_day_s s (the day's rows alone; ours also writes the month and the dashboards anew)"
echo "one more day, everything      $day_downstream_s s"
echo "nothing due (median of 5)     $(cat "$work/idle") s"
