#!/usr/bin/env bash
# A throwaway PostgreSQL for tests and benches: `scripts/postgres.sh COMMAND…` runs the command with TALLYROLL_TEST_POSTGRES
# set to its URL, and removes the cluster afterwards. Server programs are Debian's; as root they run as user `nobody`.
set -euo pipefail

find_server() {
  bin=""
  for candidate in /usr/lib/postgresql/*/bin "$(dirname "$(command -v postgres || echo /nonexistent/x)")"; do
    [ -x "$candidate/initdb" ] && bin=$candidate
  done
  [ -n "$bin" ]
}
# The tests also go through a pooler.
missing=()
find_server || missing+=(postgresql)
[ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's ${missing[*]}" >&2
  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >&2
fi
if ! find_server || [ ! -x /usr/sbin/pgbouncer ]; then
  echo "error: PostgreSQL's server programs or pgbouncer are not installed" >&2
  echo "hint: apt-get install postgresql pgbouncer (PostgreSQL 13 or newer), then run this again" >&2
  exit 1
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/tallyroll-postgres.XXXXXX")
as_server() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown nobody "$dir"
  as_server() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
fi
stop() {
  as_server "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$dir"
as_server "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
# Nothing outlives the run, so nothing is synced; settings beyond that come from TALLYROLL_POSTGRES_OPTIONS.
as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -o \
  "-c listen_addresses='' -c unix_socket_directories='$dir' -c fsync=off -c full_page_writes=off -c max_connections=60 ${TALLYROLL_POSTGRES_OPTIONS:-}" \
  start >/dev/null || { cat "$dir/server.log" >&2; exit 1; }
# Before PostgreSQL 15 everyone may create in `public`, which Tallyroll refuses.
for database in template1 postgres; do
  psql -X -q -h "$dir" -U postgres -d "$database" -c "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
done
cd - >/dev/null

chmod 755 "$dir"
export TALLYROLL_TEST_POSTGRES="postgres://postgres@localhost/postgres?host=$dir"
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres
"$@"
