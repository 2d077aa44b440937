# Short names for the project's commands; `just` lists them.

default:
    @just --list

# Everything that CI runs: format, lints, docs, tests on SQLite and PostgreSQL
test *ARGUMENTS:
    scripts/test.sh {{ARGUMENTS}}

# Kill loops and random logs at full length
campaign:
    scripts/campaign.sh

# Tallyroll against plain SQL inside PostgreSQL
bench ROWS="10000000":
    scripts/bench.sh {{ROWS}}

# Advisories (fetched from GitHub), licences, bans, sources
deny:
    cargo deny --locked check advisories licenses bans sources

# Accept changed snapshots and golden files, after reading them
accept:
    UPDATE_GOLDEN=1 INSTA_UPDATE=always scripts/postgres.sh cargo test --locked --features abort-points
