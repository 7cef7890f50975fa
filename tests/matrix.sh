#!/usr/bin/env bash
# The tests on every other Python and PostgreSQL that this machine has: `make test-all`.
# Each Python gets a virtual environment of its own, with the newest Django that it can run.
# PYTHONS names the Pythons to try, newest first; with FIRST_ONLY=1 the first that is there will do.
set -euo pipefail
cd "$(dirname "$0")/.."

main="$("${PYTHON:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
ran=0

# The first that runs: a version manager's shim may be on the PATH for a Python that is not active.
find_python() {
  local candidate
  for candidate in "$(command -v "python$1")" "$HOME/.pyenv/versions/$1".*/bin/python; do
    [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 1
}

for version in ${PYTHONS:-3.14 3.13 3.12 3.11}; do
  [ "$version" = "$main" ] && continue
  python="$(find_python "$version")" || { echo "-- Python $version: not found, left out"; continue; }
  echo "-- Python $version"
  make --no-print-directory test PYTHON="$python" VENV=".venv-$version" ARGS="tests/unit tests/integration $*"
  ran=$((ran + 1))
  [ -z "${FIRST_ONLY:-}" ] || break
done

for programs in /usr/lib/postgresql/*/bin; do
  [ -x "$programs/postgres" ] || { echo "-- no other PostgreSQL found"; continue; }
  echo "-- $("$programs/postgres" --version)"
  # What depends on the server: SQL, triggers, LISTEN, the outbox.
  PGOBSERVE_TEST_PG_BIN="$programs" make --no-print-directory test \
    ARGS="tests/integration/triggers tests/integration/feed tests/integration/outbox $*"
  ran=$((ran + 1))
done

echo "-- $ran other combinations ran"
