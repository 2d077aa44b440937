#!/usr/bin/env bash
# The lake at size, in one run: `scripts/bench-lake.sh [ROWS]`, 10 million rows over 90 days unless said, in PostgreSQL.
# Archives the oldest 60 days with deletion, counts everything again from the lake and the table, has DuckDB make the same daily summary of
# the same files, compares row by row, and puts one day back.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TALLYROLL_TEST_POSTGRES:-}" ]; then
  cargo build --release --quiet
  export TALLYROLL_POSTGRES_OPTIONS="-c shared_buffers=2GB -c work_mem=256MB -c maintenance_work_mem=512MB -c max_wal_size=8GB"
  exec scripts/python.sh scripts/postgres.sh "$0" "$@"
fi

rows=${1:-10000000}
tallyroll=$PWD/${CARGO_TARGET_DIR:-target}/release/tallyroll
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DATABASE_URL=$TALLYROLL_TEST_POSTGRES TALLYROLL__OUTPUT__URL=$work/out PYTHONPATH=$TALLYROLL_TEST_PYTHONPATH RUST_LOG=error
# What psql looks for is where Tallyroll keeps it.
export PGOPTIONS="-c search_path=public,tallyroll"
timed() { python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{seconds:.2f} {usage.ru_maxrss / 1024:.0f} {usage.ru_utime + usage.ru_stime:.2f} {code}")
PYTHON
}
tables=(usage_daily usage_daily_user usage_daily_customer usage_daily_type usage_daily_total usage_monthly_user usage_monthly_customer)
# The rows of every summary, whatever their order.
digest() { for table in "${tables[@]}"; do psql -q -A -t -c "SELECT '$table', count(*), sum(hashtextextended(t::TEXT, 0)::NUMERIC) FROM $table AS t"; done; }
same() { diff "$work/before" <(digest) >/dev/null && echo "the same rows" || { echo "error: other rows"; diff "$work/before" <(digest); exit 1; }; }
as_of=2026-04-20

echo "== loading $rows rows"
"$tallyroll" migrate >/dev/null
psql -q -v ON_ERROR_STOP=1 -v rows="$rows" -f benches/load.sql
read -r count_s _ < <(timed "$tallyroll" run-job usage_daily --downstream --as-of "$as_of")
digest >"$work/before"
cat "$work/before"

echo "== archiving the oldest 60 days, with deletion"
export TALLYROLL__ARCHIVE__DELETE=true
read -r archive_s archive_mb archive_cpu code < <(timed "$tallyroll" archive --as-of 2026-06-09)
[ "$code" = 0 ] || { echo "the archive ended with exit code $code"; exit 1; }
archived=$(psql -q -A -t -c "SELECT sum(event_count) FROM archived_day")
days=$(psql -q -A -t -c "SELECT count(*) FROM archived_day")
bytes=$(du -sb "$work/out/usage_event" | cut -f1)
all_bytes=$(du -sb "$work/out/usage_event" "$work/out/source_row" | awk '{ s += $1 } END { print s }')
"$tallyroll" run-job usage_daily --downstream --as-of "$as_of"
same
read -r verify_s _ _ code < <(timed "$tallyroll" archive --verify)
[ "$code" = 0 ]

echo "== counting all of it again, 60 days from the lake"
read -r rebuild_s rebuild_mb rebuild_cpu code < <(timed "$tallyroll" run-job usage_daily --rebuild --downstream --as-of "$as_of")
[ "$code" = 0 ]
same

echo "== the daily summary of the archived days alone, and by DuckDB from the same files"
last=$(psql -q -A -t -c "SELECT max(event_date) + 1 FROM archived_day")
read -r fold_s fold_mb fold_cpu code < <(timed "$tallyroll" run-job usage_daily --from 2026-01-10 --to "$last" --as-of "$as_of")
[ "$code" = 0 ]
cat >"$work/peer.py" <<'PYTHON'
import duckdb, sys
db = duckdb.connect(f"{sys.argv[1]}/peer.duckdb")
db.execute("SET threads = 2")
db.execute(open("benches/lake_duckdb.sql").read().replace("{lake}", f"{sys.argv[1]}/out/usage_event"))
PYTHON
read -r duckdb_s duckdb_mb _ code < <(timed python3 "$work/peer.py" "$work")
[ "$code" = 0 ]
psql -q -c "COPY (SELECT usage_date, user_id, COALESCE(customer_id, '-'), request_type, COALESCE(model, '-'), request_count, total_tokens, total_cost_nanos FROM usage_daily WHERE usage_date < '$last') TO STDOUT (FORMAT csv)" >"$work/ours.csv"
differing=$(python3 - "$work" <<'PYTHON'
import duckdb, sys
db = duckdb.connect(f"{sys.argv[1]}/peer.duckdb")
names = ["usage_date", "user_id", "customer_id", "request_type", "model", "request_count", "total_tokens", "total_cost_nanos"]
types = ["DATE", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT"]
columns = ", ".join(f"'{name}': '{kind}'" for name, kind in zip(names, types))
ours = f"SELECT * FROM read_csv('{sys.argv[1]}/ours.csv', header = false, columns = {{{columns}}})"
theirs = "SELECT usage_date, user_id, COALESCE(customer_id, '-'), request_type, COALESCE(model, '-'), request_count, total_tokens, total_cost_nanos FROM usage_daily"
differing = f"({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours})"
print(db.sql(f"SELECT count(*) FROM ({differing})").fetchall()[0][0])
for row in db.sql(f"SELECT * FROM ({differing}) ORDER BY ALL LIMIT 6").fetchall():
    print(*row, sep="|")
PYTHON
)
echo "rows that differ: $differing"

echo "== a day back"
day=$(psql -q -A -t -c "SELECT min(event_date) FROM archived_day")
read -r restore_s _ _ code < <(timed "$tallyroll" archive --restore "$day")
[ "$code" = 0 ]
"$tallyroll" run-job usage_daily --downstream --as-of "$as_of" >/dev/null
same

per() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.0f", n / s }'; }
echo
echo "counting $rows rows            $count_s s"
echo "archiving $archived rows, $days days   $archive_s s, $(per "$archived" "$archive_s") rows/s with proof and deletion, $archive_cpu s of its own CPU, $archive_mb MB"
echo "the lake                       $((bytes >> 20)) MiB of events, $((all_bytes >> 20)) MiB with the rows; verified in $verify_s s"
echo "counting all from lake + table $rebuild_s s, $rebuild_cpu s of its own CPU, $rebuild_mb MB"
echo "usage_daily of the lake's days $fold_s s into PostgreSQL ($fold_cpu s of its own CPU, $fold_mb MB); DuckDB $duckdb_s s into its own file ($duckdb_mb MB); ratio $(awk -v a="$fold_s" -v b="$duckdb_s" 'BEGIN { printf "%.2f", a / b }')"
echo "a day of $(per "$archived" "$days") rows back     $restore_s s"
