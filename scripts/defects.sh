#!/usr/bin/env bash
# Seeded defects: makes each mistake of tests/defects.toml in a copy of the tree, runs the tests named there, and prints the share
# that they catch. `scripts/defects.sh [WORD…]`: those whose name holds a word. On a tree whose tests pass; about half a minute each.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TALLYROLL_TEST_POSTGRES:-}" ]; then
  exec scripts/python.sh scripts/postgres.sh "$0" "$@"
fi

export CARGO_TARGET_DIR=${TALLYROLL_DEFECTS_TARGET:-$PWD/target/defects} CARGO_TERM_COLOR=never RUST_BACKTRACE=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -pt "$work"
exec python3 - "$work" "$@" <<'PYTHON'
import pathlib, subprocess, sys, time, tomllib

work, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
defects = tomllib.loads((work / "tests/defects.toml").read_text())["defect"]
chosen = [defect for defect in defects if not words or any(word in defect["name"] for word in words)]
cargo = ["cargo", "test", "--quiet", "--locked", "--features", "abort-points"]


def run(arguments):
    return subprocess.run([*cargo, *arguments], cwd=work, capture_output=True, text=True)


# Each must find its place before any is made.
for defect in chosen:
    count = (work / defect["file"]).read_text().count(defect["from"])
    if count != 1:
        sys.exit(f"error: the text of \"{defect['name']}\" stands {count} times in {defect['file']}")
missed = []
for defect in chosen:
    file = work / defect["file"]
    whole = file.read_text()
    file.write_text(whole.replace(defect["from"], defect["to"]))
    started = time.monotonic()
    built = run(["--no-run"])
    if built.returncode != 0:
        file.write_text(whole)
        print(f"BROKEN          {defect['name']}\n{built.stderr[-1500:]}", flush=True)
        missed.append(defect["name"])
        continue
    tested = run(["--no-fail-fast", "--", *defect["tests"].split()])
    file.write_text(whole)
    caught = tested.returncode != 0
    failed = [line[5:].removesuffix(" stdout ----") for line in tested.stdout.splitlines() if line.startswith("---- ")]
    print(f"{'caught' if caught else 'MISSED'}  {time.monotonic() - started:4.0f} s  {defect['name']}" + (f"  ({failed[0]}, {len(failed)} in all)" if failed else ""), flush=True)
    if not caught:
        missed.append(defect["name"])
print(f"\n{len(chosen) - len(missed)} of {len(chosen)} caught")
sys.exit(1 if missed else 0)
PYTHON
