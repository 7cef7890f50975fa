"""The demo's command: what it starts, what it refuses, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from websockets.exceptions import InvalidStatus

from tests.acceptance import server as processes
from tests.acceptance.client import connected
from tests.acceptance.demo import Demo, demo, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running() -> Iterator[Demo]:
    """A demo that the tests share."""
    with demo() as started:
        yield started


def request(
    url: str, method: str = "GET", path: str = "/", body: object = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=processes.PATIENCE)
    try:
        raw = body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, None if body is None else raw.encode(), headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def run_sql(running: Demo, sql: object, **headers: str) -> tuple[int, dict[str, Any]]:
    """Post a statement as the page does."""
    own = {"Origin": running.url.rstrip("/"), "Content-Type": "application/json"}
    status, _, text = request(running.url, "POST", "/sql/", {"sql": sql}, **own | headers)
    return status, json.loads(text)


def postmaster(running: Demo) -> int:
    """Return the process id of the demo's PostgreSQL."""
    [path] = running.temporary.glob("pgobserve-*/data/postmaster.pid")
    return int(path.read_text().split()[0])


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or dead and merely not yet collected."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_all_of_it(number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal leave no process and no file, with a socket open too."""
    with demo() as started:
        server = postmaster(started)
        origin = started.url.rstrip("/")
        async with connected(started.sockets + "ships/", origin=origin) as client:
            await client.subscribe(1)
            code = started.process.stop(number)

        assert code == 0
        assert started.process.output().endswith("Stopped; nothing is left running.\n")
        assert "Traceback" not in started.process.output()
        assert ended(server)
        assert not list(started.temporary.iterdir())


def test_killed_it_leaves_nothing_either() -> None:
    """After kill -9 a watchdog ends PostgreSQL and removes its directory."""
    with demo() as started:
        server = postmaster(started)
        assert started.process.stop(signal.SIGKILL) == -signal.SIGKILL

        until(lambda: ended(server) and not list(started.temporary.iterdir()))


def test_port_is_taken(running: Demo, tmp_path: Path) -> None:
    """A port that is taken is said in one sentence, and nothing is started."""
    port = str(urlsplit(running.url).port)
    environ = processes.plain_environment()
    arguments = ["-m", "pgobserve", "demo", "--port", port]
    with processes.process("second", arguments, tmp_path, environ, cwd=tmp_path) as second:
        code = second.popen.wait(processes.PATIENCE)

    assert code == 1
    assert second.output() == (
        f"Port {port} of 127.0.0.1 is taken by another program. "
        "Choose another: python -m pgobserve demo --port 8010\n"
    )


def test_named_server_is_left_as_it_was() -> None:
    """On a server that the environment names, a database and a role of its own come and go."""
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(
        **{"password": "", "dbname": "postgres"} | processes.run_server()
    )

    def present() -> set[str]:
        with psycopg.connect(**processes.run_server()) as connection:
            rows = connection.execute(
                "SELECT 'database ' || datname FROM pg_database"
                " WHERE datname LIKE 'pgobserve_demo%' UNION ALL "
                "SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'pgobserve_demo%'"
            )
            return {name for (name,) in rows.fetchall()}

    before = present()
    with demo(DATABASE_URL=url) as started:
        name = conninfo_to_dict(started.database)["dbname"]
        during = present()
        assert name in started.process.output()
        _, outcome = run_sql(started, "UPDATE ship SET cargo = 1 WHERE id = 1")
        code = started.process.stop(signal.SIGINT)

    assert code == 0
    assert outcome["results"][0]["status"] == "UPDATE 1"
    assert during - before == {f"database {name}", f"role {name}"}
    assert present() == before


def test_unreachable_server(tmp_path: Path) -> None:
    """A named server that can't be reached is said, with the remedy, and without a traceback."""
    environ = processes.plain_environment(DATABASE_URL="postgresql://me:hidden@127.0.0.1:1/db")
    arguments = ["-m", "pgobserve", "demo", "--port", "0"]
    with processes.process("demo", arguments, tmp_path, environ, cwd=tmp_path) as started:
        code = started.popen.wait(processes.PATIENCE)

    assert code == 1
    assert "Or unset DATABASE_URL" in started.output()
    assert "Traceback" not in started.output()
    assert "hidden" not in started.output()


def test_page_is_strict(running: Demo) -> None:
    """The page allows no script, style or connection but its own."""
    status, headers, text = request(running.url)

    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert "http://" not in text
    assert "https://" not in text


def test_another_host_name_is_refused(running: Demo) -> None:
    """A name that another website made point here gets nothing."""
    assert request(running.url, Host="evil.example")[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_another_website_can_not_run_sql(running: Demo, headers: dict[str, str]) -> None:
    """A statement is run only for the page itself."""
    status, answer = run_sql(running, "DROP TABLE ship", **headers)

    assert status in {403, 415}
    assert answer["error"]
    assert run_sql(running, "SELECT 1 FROM ship")[1]["error"] is None


async def test_another_website_can_not_watch(running: Demo) -> None:
    """A WebSocket is opened only for the page itself."""
    for origin in ("http://evil.example", "http://127.0.0.1:1", None):
        with pytest.raises(InvalidStatus) as caught:
            async with connected(running.sockets + "ships/", origin=origin):
                pass
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"sql": 5}', '{"sql": " "}', '{"sql": "\\u0000"}']
)
def test_garbage_is_refused(running: Demo, body: str) -> None:
    """What is no statement is refused with a sentence."""
    headers = {"Origin": running.url.rstrip("/"), "Content-Type": "application/json"}
    status, _, text = request(running.url, "POST", "/sql/", body, **headers)

    assert status == 400
    assert json.loads(text)["error"]


def test_sql_box_answers(running: Demo) -> None:
    """Rows, a status, an error, and a transaction left open are each told."""
    _, rows = run_sql(running, "SELECT id, NULL AS nothing FROM generate_series(1, 60) AS id")
    _, status = run_sql(running, "UPDATE ship SET cargo = cargo; SELECT 'two'")
    _, error = run_sql(running, "SELEC 1")
    _, left_open = run_sql(running, "BEGIN; DELETE FROM ship")

    assert rows["results"][0]["columns"] == ["id", "nothing"]
    assert rows["results"][0]["rows"][:2] == [["1", None], ["2", None]]
    assert len(rows["results"][0]["rows"]) == 50
    assert rows["results"][0]["more"]
    assert [one["status"][:6] for one in status["results"]] == ["UPDATE", "SELECT"]
    assert 'syntax error at or near "SELEC"' in error["error"]
    assert left_open["note"] == "The transaction was left open, so it was rolled back."
    assert int(run_sql(running, "SELECT count(*) FROM ship")[1]["results"][0]["rows"][0][0]) > 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY ship TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE another",
        "CREATE DATABASE another",
    ],
)
def test_sql_box_has_no_privileges(running: Demo, sql: str) -> None:
    """What is typed can touch neither the machine nor another database."""
    _, outcome = run_sql(running, sql)

    assert "permission denied" in outcome["error"]
