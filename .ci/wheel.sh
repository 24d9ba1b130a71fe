#!/usr/bin/env bash
# Build the wheel, install it with the locked versions in an empty environment, and run the demo in an empty folder.
# Where a network namespace can be made (root on Linux), the demo runs without any network but loopback.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m build --wheel --no-isolation --outdir "$work/dist" . >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
grep -E '^[a-z0-9]' requirements.lock | sed 's/ \\$//' >"$work/versions.txt" # a constraint with hashes would ask for the wheel's own
if command -v uv >/dev/null 2>&1; then
  uv venv -q --python .venv/bin/python "$work/venv"
  uv pip install -q -p "$work/venv/bin/python" -c "$work/versions.txt" "$work"/dist/*.whl
else
  .venv/bin/python -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -q --disable-pip-version-check -c "$work/versions.txt" "$work"/dist/*.whl
fi
mkdir "$work/empty"
cd "$work/empty"
alone=()
if unshare -n true 2>/dev/null; then alone=(unshare -n sh -c 'ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null; exec "$@"' sh); fi
env -u PYTHONPATH "${alone[@]}" "$work/venv/bin/d2c" demo
echo "1 passed, 0 failed"
