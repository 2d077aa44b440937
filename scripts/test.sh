#!/usr/bin/env bash
# Everything: format, lints, docs, and all tests on SQLite and on a throwaway PostgreSQL. Arguments go to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
step "format"
cargo fmt --check
step "lints"
cargo clippy --quiet --all-targets --locked -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --locked
step "tests, on SQLite and PostgreSQL"
cargo build --quiet --tests --locked
INSTA_UPDATE=no exec scripts/python.sh scripts/postgres.sh cargo test --locked -- "$@"
