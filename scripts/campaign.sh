#!/usr/bin/env bash
# The long campaigns whole: kills at random, at every abort point and at pairs of them, cuts at every moment of the wire, thousands of lies of the
# storage, random sequences against a model, 4,000 random logs, five minutes of schedulers side by side. `scripts/test.sh` runs them short.
set -euo pipefail
cd "$(dirname "$0")/.."
# On the optimized build, which takes ten minutes once: the campaigns start the program some twenty thousand times.
cargo build --release --quiet --tests --locked --features abort-points
TALLYROLL_CAMPAIGN=1 exec scripts/python.sh scripts/postgres.sh cargo test --release --locked --features abort-points --test main -- --nocapture \
  interrupted faults abort_points wire lying_storage model differential publishing concurrent schedulers scheduling quarantine recording one_snapshot speed "$@"
