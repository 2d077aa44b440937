#!/usr/bin/env bash
# Python packages that the tests read files with, validate JSON and Kubernetes manifests with, and run an S3-compatible server from:
# `scripts/python.sh COMMAND…` installs them once, outside the checkout, and runs the command with TALLYROLL_TEST_PYTHONPATH set.
set -euo pipefail

packages=(
  "moto[s3]==5.2.5" "flask==3.1.3" "flask-cors==6.0.5" "pyarrow==26.0.1" "duckdb==2.0.0"
  "openapi-spec-validator==0.9.0" "jsonschema==4.26.0" "kubernetes-validate==1.37.0"
)
if ! command -v python3 >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
  echo "error: the tests need python3 with pip" >&2
  echo "hint: apt-get install python3-pip, then run this again" >&2
  exit 1
fi
version=$(printf '%s\n' "$(python3 --version)" "${packages[@]}" | sha256sum | cut -c1-12)
dir=${TALLYROLL_PYTHON_DIR:-$HOME/.cache/tallyroll-python-$version}
if [ ! -e "$dir/.complete" ]; then
  echo "Installing ${packages[*]}" >&2
  rm -rf "$dir"
  mkdir -p "$(dirname "$dir")"
  # pip warns of packages that other projects installed; they are none of ours.
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$dir" "${packages[@]}" 2>"$dir.log" \
    || { sed -E 's#https?://[^ ]+#(registry)#g' "$dir.log" >&2; exit 1; }
  touch "$dir/.complete"
fi
export TALLYROLL_TEST_PYTHONPATH=$dir
"$@"
