"""
Run the benchmarks and print the table.

``python -m benchmarks [name…] [--quick] [--json FILE]``. Each module ``benchmarks/list_*.py``,
``benchmarks/read_*.py`` and ``benchmarks/write_*.py`` is one benchmark: its function ``run(quick)`` returns its rows. A name is
a module's, or the beginning of some: ``read``, ``write_rows``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from benchmarks.results import Row, as_json, as_markdown

HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(
        path.stem for prefix in ("list", "read", "write") for path in HERE.glob(f"{prefix}_*.py")
    )


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    options = parser.parse_args()
    wanted = [n for n in names() if not options.names or n.startswith(tuple(options.names))]
    if not wanted:
        parser.error(f"no benchmark is called so; there are: {', '.join(names())}")
    if sys.flags.dev_mode:
        # The development mode checks every call into asyncio: it would be measured instead.
        os.environ.pop("PYTHONDEVMODE", None)
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]])
    rows: list[Row] = []
    failed = [name for name in wanted if not _run(name, options.quick, rows)]
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()}\n")
    print(as_markdown(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(rows), indent=1, ensure_ascii=False) + "\n")
    if failed:
        print(f"\nFailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, quick: bool, rows: list[Row]) -> bool:
    began = time.monotonic()
    print(f"{name} …", end=" ", file=sys.stderr, flush=True)
    try:
        rows.extend(importlib.import_module(f"benchmarks.{name}").run(quick=quick))
    except Exception as error:  # noqa: BLE001 (the others are run all the same)
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
