#!/usr/bin/env bash
# Peak seats at size, in one run: `scripts/bench-seats.sh [SUBSCRIPTIONS] [LEDGER_ROWS]`, 100,000 and 10 million unless said.
# The whole job on PostgreSQL, then the fold alone over the ledger as Parquet beside the same peaks by DuckDB over the same file.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TALLYROLL_TEST_POSTGRES:-}" ]; then
  cargo build --release --quiet
  cargo build --release --quiet --bench peak_fold
  export TALLYROLL_POSTGRES_OPTIONS="-c shared_buffers=2GB -c work_mem=256MB -c maintenance_work_mem=512MB -c max_wal_size=8GB"
  exec scripts/python.sh scripts/postgres.sh "$0" "$@"
fi

subscriptions=${1:-100000}
rows=${2:-10000000}
target=${CARGO_TARGET_DIR:-target}/release
tallyroll=$PWD/$target/tallyroll
fold=$(find "$target/deps" -name 'peak_fold-*' -type f -perm -u+x -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DATABASE_URL=$TALLYROLL_TEST_POSTGRES TALLYROLL__OUTPUT__URL=$work/out PYTHONPATH=$TALLYROLL_TEST_PYTHONPATH
# What psql looks for is where Tallyroll keeps it.
export PGOPTIONS="-c search_path=public,tallyroll"
timed() { python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
seconds = time.monotonic() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{seconds:.2f} {usage.ru_maxrss / 1024:.0f} {usage.ru_utime + usage.ru_stime:.2f} {code}")
PYTHON
}

echo "== loading $subscriptions subscriptions and $rows ledger rows"
"$tallyroll" migrate >/dev/null
psql -q -v ON_ERROR_STOP=1 -v subscriptions="$subscriptions" -v rows="$rows" -f benches/seats_load.sql

echo "== the whole job: 36 months, sealed"
read -r job_s job_mb job_cpu code < <(timed "$tallyroll" run-job peak_seats --as-of 2026-01-01)
[ "$code" = 0 ] || { echo "the job ended with exit code $code"; exit 1; }
"$tallyroll" runs --job peak_seats --limit 1 2>/dev/null
du -sh "$work/out" | cut -f1
echo "== the ledger as Parquet"
psql -q -c "COPY (SELECT id, org_id, seats, to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') AS occurred_at FROM seat_usage_event ORDER BY id) TO STDOUT (FORMAT csv, HEADER)" >"$work/ledger.csv"
psql -q -c "COPY (SELECT id, org_id, to_char(start_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') AS start_at FROM subscription ORDER BY id) TO STDOUT (FORMAT csv, HEADER)" >"$work/subscription.csv"
python3 - "$work" <<'PYTHON'
import duckdb, sys
for name, at in (("ledger", "occurred_at"), ("subscription", "start_at")):
    duckdb.sql(f"COPY (SELECT * REPLACE (CAST({at} AS TIMESTAMP) AS {at}) FROM read_csv('{sys.argv[1]}/{name}.csv', header = true, all_varchar = false)) TO '{sys.argv[1]}/{name}.parquet' (FORMAT parquet)")
PYTHON
rm "$work"/*.csv

echo "== fold and DuckDB, three times each, in turns"
sed "s#{dir}#$work#g" benches/seats_duckdb.sql >"$work/peer.sql"
duckdb_run=(python3 -c "import duckdb, sys; duckdb.execute('SET threads = 2'); duckdb.execute(open(sys.argv[1]).read())" "$work/peer.sql")
for _ in 1 2 3; do
  timed "$fold" "$work" >>"$work/fold.times"
  timed "${duckdb_run[@]}" >>"$work/duckdb.times"
done
grep -hv ' 0$' "$work/fold.times" "$work/duckdb.times" && { echo "a side failed"; exit 1; }
read -r fold_s fold_mb _ < <(sort -n "$work/fold.times" | sed -n 2p)
read -r duckdb_s duckdb_mb _ < <(sort -n "$work/duckdb.times" | sed -n 2p)
python3 - "$work" <<'PYTHON'
import duckdb, sys
dir = sys.argv[1]
one, two = f"SELECT subscription_id, month_number, peak_seats, ledger_rows, closing_seats FROM read_parquet('{dir}/fold.parquet')", f"SELECT subscription_id, month_number, peak_seats, ledger_rows, closing_seats FROM read_parquet('{dir}/duckdb.parquet')"
count = lambda sql: duckdb.sql(f"SELECT count(*) FROM ({sql})").fetchall()[0][0]
job = f"SELECT subscription_id, month_number, peak_seats, ledger_rows, closing_seats FROM read_parquet('{dir}/out/peak_seats/current/**/*.parquet')"
print("subscription months:", count(one), "by the fold,", count(two), "by DuckDB,", count(job), "by the job")
differences = [count(f"({left}) EXCEPT ({right})") for left, right in ((one, two), (two, one), (job, two), (two, job))]
print("differing rows (fold - DuckDB, DuckDB - fold, job - DuckDB, DuckDB - job):", *differences)
sys.exit(any(differences))
PYTHON

echo "== again, an hour later: only open months change"
read -r again_s again_mb _ code < <(timed "$tallyroll" run-job peak_seats --as-of 2026-01-01T01:00:00Z)
[ "$code" = 0 ]

echo
echo "whole job                     $job_s s ($(awk -v r="$rows" -v s="$job_s" 'BEGIN { printf "%.0f", r / s }') ledger rows/s, $job_cpu s of its own CPU), peak memory $job_mb MB"
echo "an hour later                 $again_s s, $again_mb MB"
echo "fold over Parquet             $fold_s s, $fold_mb MB (median of 3)"
echo "DuckDB over the same          $duckdb_s s, $duckdb_mb MB (median of 3)"
echo "ratio                         $(awk -v a="$fold_s" -v b="$duckdb_s" 'BEGIN { printf "%.2f", a / b }')"
