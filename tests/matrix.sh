#!/usr/bin/env bash
# The tests on every other Python and PostgreSQL that can be had here: `make test-all`.
# Each Python gets a virtual environment of its own, with the newest Django that it can run.
# PYTHONS names the Pythons to try, newest first. POSTGRESQLS names the versions of PostgreSQL,
# oldest first; npm fetches those that are not installed.
# FIRST_ONLY=1 is for CI. It runs the first Python that is there, on the oldest PostgreSQL that the
# newest Django supports; other Pythons run the unit tests. The other versions of PostgreSQL run only
# the tests of what the server itself executes or stores.
set -euo pipefail
cd "$(dirname "$0")/.."

main="$("${PYTHON:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
ran=()
failed=()

# The first that runs: a version manager's shim may be on the PATH for a Python that is not active.
find_python() {
  local candidate
  for candidate in "$(command -v "python$1")" "$HOME/.pyenv/versions/$1".*/bin/python; do
    [ -x "$candidate" ] && "$candidate" -c '' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 1
}

# npm's, which has nearly the options of everybody's, or else the system's.
find_postgresql() {
  "${PYTHON:-python3}" tests/postgresql.py "$1" && return
  [ -x "/usr/lib/postgresql/$1/bin/postgres" ] && echo "/usr/lib/postgresql/$1/bin"
}

run() {
  local name="$1" started="$SECONDS"
  shift
  echo "-- $name"
  if "$@"; then ran+=("$name"); else failed+=("$name"); fi
  echo "-- $name took $((SECONDS - started)) s"
}

# 18 is what all tests run on.
versions="${POSTGRESQLS-14 15 16 17}"
OLDEST=15
# The triggers, what they write, and the queries that read it.
folders="tests/integration/triggers tests/integration/outbox tests/integration/listen"
# Keys and row images of every type.
[ ! -d tests/integration/types ] || folders+=" tests/integration/types"
[ -n "${FIRST_ONLY:-}" ] || folders+=" tests/integration/sql tests/integration/database tests/integration/load tests/integration/runtime"
# The development mode of Python belongs to the run on the main Python: it costs a tenth.
export PYTHONDEVMODE=

python_tests="tests/unit tests/integration"
for version in ${PYTHONS:-3.14 3.13 3.12 3.11}; do
  [ "$version" = "$main" ] && continue
  python="$(find_python "$version")" || { echo "-- Python $version: not found, left out"; continue; }
  name="Python $version"
  oldest=
  if [ -n "${FIRST_ONLY:-}" ] && [ "$python_tests" != tests/unit ] && oldest="$(find_postgresql "$OLDEST")"; then
    name+=" with PostgreSQL $OLDEST"
    versions="${versions/$OLDEST/}"
  fi
  PGOBSERVE_TEST_PG_BIN="$oldest" run "$name" \
    make --no-print-directory test PYTHON="$python" VENV=".venv-$version" ARGS="$python_tests $*"
  [ -z "${FIRST_ONLY:-}" ] || python_tests="tests/unit"
done

for version in $versions; do
  programs="$(find_postgresql "$version")" || { echo "-- PostgreSQL $version: not found, left out"; continue; }
  PGOBSERVE_TEST_PG_BIN="$programs" run "$("$programs/postgres" --version)" \
    make --no-print-directory test ARGS="$folders $*"
done

printf -v names ', %s' "${ran[@]-}"
echo "-- passed: ${names:2}"
[ ${#failed[@]} -eq 0 ] && exit
printf -v names ', %s' "${failed[@]}"
echo "-- FAILED: ${names:2}"
exit 1
