#!/usr/bin/env bash
# Everything: format, lints, docs, and all tests on SQLite and on a throwaway PostgreSQL. Arguments go to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
step "format"
cargo fmt --check
step "lints, with the abort points of the tests and as it is built for use"
cargo clippy --quiet --all-targets --locked --features abort-points -- -D warnings
cargo clippy --quiet --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --locked --features abort-points
step "tests, on SQLite and PostgreSQL"
cargo build --quiet --tests --locked --features abort-points
INSTA_UPDATE=no exec scripts/python.sh scripts/postgres.sh cargo test --locked --features abort-points -- "$@"
