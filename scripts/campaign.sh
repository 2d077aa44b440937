#!/usr/bin/env bash
# The long campaigns whole: kills at random, at every abort point and at pairs of them, cuts at every moment of the wire, thousands of lies of the
# storage, random sequences against a model, 4,000 random logs, five minutes of schedulers side by side, 100,000 events over cut connections. `scripts/test.sh` runs them short.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --tests --locked --features abort-points
TALLYROLL_CAMPAIGN=1 exec scripts/python.sh scripts/postgres.sh cargo test --locked --features abort-points --test main -- --nocapture \
  interrupted faults abort_points wire lying_storage model differential posted publishing concurrent schedulers scheduling quarantine recording one_snapshot speed hostile_storage "$@"
