"""The tutorial of the documentation: its code, typed in and run, in a real browser."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.browser import BROWSER, DRIVER, chromium
from tests.acceptance.server import PATIENCE, ROOT, plain_environment, process, run_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

    from tests.acceptance.server import Process

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no chromium and chromedriver on the PATH (Debian: apt-get install chromium-driver)",
    ),
]

STEPS = re.split(r"^## \d+\. ", (ROOT / "docs/tutorial/index.md").read_text(), flags=re.MULTILINE)
FILE = re.compile(
    r"`(live/(?!settings)\w+\.py|templates/\w+\.html)`(?:(?!```).)*```(?:python|html)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PSQL = re.compile(r'^\$ psql live -c "(.+)"$', re.MULTILINE)

SETTINGS = """
INSTALLED_APPS = ["daphne", "rest_framework", "pgobserve", *INSTALLED_APPS]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "live"}}
ASGI_APPLICATION = "live.asgi.application"
TEMPLATES[0]["DIRS"] = [BASE_DIR / "templates"]
"""


class Project:
    """
    The project that the tutorial makes.

    Args:
        directory: Where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
        known = {names[key]: str(value) for key, value in run_server().items() if key in names}
        self.environ = plain_environment(**known, PYTHONDEVMODE="")
        self.run("-m", "django", "startproject", "live", ".")
        with (directory / "live/settings.py").open("a") as settings:
            settings.write(SETTINGS)

    def type_in(self, step: int) -> None:
        """Save the files of a step."""
        for name, content in FILE.findall(STEPS[step]):
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    def run(self, *arguments: str) -> str:
        """Run Python, and return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def served(self) -> Iterator[str]:
        """Run the development server; yields the page's address."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = ["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
        with process("runserver", command, self.directory, self.environ, cwd=self.directory) as one:
            until_listening(port, one)
            yield f"http://127.0.0.1:{port}/"


def until_listening(port: int, server: Process) -> None:
    """Wait until a server takes connections."""
    while server.popen.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(server.output())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty folder, and an empty database of the tutorial's name."""
    with psycopg.connect(**run_server(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE live")
        try:
            yield Project(tmp_path)
        finally:
            admin.execute("DROP DATABASE live WITH (FORCE)")


def psql(step: int) -> Iterator[str]:
    """Yield the statements of a step, each after it was run."""
    for statement in PSQL.findall(STEPS[step]):
        with psycopg.connect(**run_server() | {"dbname": "live"}, autocommit=True) as connection:
            connection.execute(statement.encode())
        yield statement


def test_tutorial(project: Project) -> None:
    """What the tutorial says will be seen is seen."""
    for step in range(1, 7):
        project.type_in(step)
    project.run("manage.py", "migrate")
    users = re.search(r'shell -c "\n(.+?)"$', STEPS[5], re.MULTILINE | re.DOTALL)
    assert users is not None
    project.run("manage.py", "shell", "-c", users[1])
    assert project.run("manage.py", "pgobserve", "install") in STEPS[5]
    with chromium() as browser:
        row(project, browser)
        a_list(project, browser)
        related(project, browser)


def row(project: Project, browser: Chrome) -> None:
    """Step 7."""
    with project.served() as url:
        browser.get(url)
        until(browser, "#name", lambda text: text == "test 1")
        done = psql(7)
        next(done)
        until(browser, "#name", lambda text: text == "edited in psql")
        next(done)
        next(done)
        until(browser, "#name", lambda text: text == "gone")


def a_list(project: Project, browser: Chrome) -> None:
    """Step 8."""
    project.type_in(8)
    with project.served() as url:
        browser.get(url)
        until(
            browser, "#users", lambda text: text == "test 2, 2@example.com\ntest 3, 3@example.com"
        )
        done = psql(8)
        next(done)
        until(browser, "#users", lambda text: text.endswith("\ntest 1, 1@example.com"))
        until(browser, "#count", lambda text: text == "3")
        next(done)
        until(
            browser, "#users", lambda text: text == "test 3, 3@example.com\ntest 1, 1@example.com"
        )
        browser.find_element("id", "search").send_keys("test 3")
        until(browser, "#users", lambda text: text == "test 3, 3@example.com")
        next(done)
        until(
            browser, "#users", lambda text: text == "test 3, 3@example.com\ntest 33, 1@example.com"
        )
        next(done)
        until(browser, "#count", lambda text: text == "1")


def related(project: Project, browser: Chrome) -> None:
    """Step 9."""
    project.type_in(9)
    page = project.directory / "templates/index.html"
    line = re.search(r"```javascript\n(.+?\n)```", STEPS[9], re.DOTALL)
    assert line is not None
    page.write_text(re.sub(r" +item\.textContent = .+\n", lambda _: line[1], page.read_text()))
    assert project.run("manage.py", "pgobserve", "deps") in STEPS[9]
    assert project.run("manage.py", "pgobserve", "install") in STEPS[9]
    with project.served() as url:
        browser.get(url)
        until(browser, "#users", lambda text: text.count("example.com") == 2)
        for statement in psql(9):
            if "auth_user_groups" in statement:
                until(browser, "#users", lambda text: text.count(": keepers") == 2)
        until(browser, "#users", lambda text: text.count(": lighthouse keepers") == 2)


def until(browser: Chrome, selector: str, condition: Callable[[str], bool]) -> None:
    """Wait until an element says what it should."""
    from selenium.webdriver.support.wait import WebDriverWait

    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(
        lambda _: condition(str(browser.execute_script(script, selector))),
        message=str(browser.execute_script("return document.body.innerText")),
    )
