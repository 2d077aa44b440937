#!/usr/bin/env bash
# The long campaigns whole: 50 kills on each database, 4,000 random logs, five minutes of schedulers side by side. `scripts/test.sh` runs them short.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --tests --locked --features abort-points
TALLYROLL_CAMPAIGN=1 exec scripts/python.sh scripts/postgres.sh cargo test --locked --features abort-points --test main -- --nocapture interrupted differential publishing concurrent schedulers "$@"
