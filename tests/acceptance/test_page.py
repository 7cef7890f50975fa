"""The demo's page in a real browser."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.acceptance.browser import BROWSER, CONTRAST, DRIVER, Page, chromium
from tests.acceptance.demo import Demo, demo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="no chromium and chromedriver on the PATH (Debian: apt-get install chromium-driver)",
    ),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Demo]:
    """A demo that the tests share."""
    with demo() as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """A browser that the tests share."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, running: Demo) -> Iterator[Page]:
    """The page with its twelve ships as they were at first, live; afterwards nothing was amiss."""
    with psycopg.connect(running.database) as connection:
        connection.execute("DELETE FROM ship WHERE id > 12")
        connection.execute(
            "INSERT INTO ship (id, name, line_id, state, berth, cargo)"
            " VALUES (5, 'Evening Tide', 3, 'docked', 'B1', 1785)"
            " ON CONFLICT (id) DO UPDATE SET berth = 'B1', cargo = 1785"
        )
        connection.execute("UPDATE line SET name = 'Gannet Line' WHERE id = 1")
        connection.execute("UPDATE ship SET cargo = 2175, state = 'at anchor' WHERE id = 11")
    opened = Page(browser, running)
    opened.emulate(1280)
    browser.get(running.url)
    browser.get_log("browser")
    opened.until(lambda: opened.text("#state") == "live" and opened.count("#ships tbody tr") == 12)
    yield opened
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def outside(page: Page, statement: str) -> None:
    """Change the table by a program that knows nothing of the page."""
    with psycopg.connect(page.demo.database) as connection:
        connection.execute(statement.encode())


def test_sql_box(page: Page) -> None:
    """A statement typed into the box changes the row, lights it up and says how and how long."""
    page.run("UPDATE ship SET cargo = 4321 WHERE id = 11")

    page.until(lambda: "4,321 t" in page.row(11))
    assert page.count('#ships tr.lit[data-key="11"][data-how="updated"]') == 1
    assert "updated" in page.row(11)
    assert " ms" in page.row(11)
    assert page.count("#ships tr[data-how]") == 1
    page.until(lambda: "UPDATE 1 in" in page.text("#result"))
    page.until(lambda: "The feed: Kittiwake updated" in page.text("#heard"))


def test_outside(page: Page) -> None:
    """A row changed by another program changes, and its frame is shown."""
    outside(page, "UPDATE ship SET state = 'in dry dock' WHERE id = 11")

    page.until(lambda: "in dry dock" in page.row(11))
    assert page.count('#ships tr[data-key="11"][data-how="updated"]') == 1
    page.until(lambda: '"state":"in dry dock"' in page.text("#log"))
    assert '"action":"update"' in page.text("#log li:last-child")


def test_keyboard(page: Page) -> None:
    """Ctrl+Enter in the box runs the statement."""
    from selenium.webdriver.common.keys import Keys

    box = page.browser.find_element("id", "sql")
    box.clear()
    box.send_keys("UPDATE ship SET cargo = 77 WHERE id = 11", Keys.CONTROL + Keys.ENTER)

    page.until(lambda: "77 t" in page.row(11))


def test_delete_and_put_back(page: Page) -> None:
    """A deleted row says so and goes; put back under its key it is there again."""
    page.example("Delete a row")

    page.until(lambda: "deleted" in page.row(5))
    page.until(lambda: page.row(5) == "")
    page.example("Put it back")
    page.until(lambda: "created" in page.row(5))


def test_filter_by_state(page: Page) -> None:
    """Of a filtered list rows that no longer match leave, and others enter; the numbers follow."""
    outside(page, "UPDATE ship SET state = 'at sea' WHERE id IN (7, 9)")
    page.choose("at sea")
    page.until(lambda: page.keys() == [7, 9])
    assert page.text("#found") == "2 ships"
    assert page.chip("at sea") == "2"
    assert page.chip("all") == "12"

    outside(
        page,
        "UPDATE ship SET state = CASE id WHEN 11 THEN 'at sea' ELSE 'approaching' END WHERE id IN (9, 11)",
    )

    page.until(lambda: "left" in page.row(9) and "entered" in page.row(11))
    page.until(lambda: page.keys() == [7, 11])
    assert page.chip("at sea") == "2"
    outside(page, "UPDATE ship SET state = 'at anchor' WHERE id IN (7, 11)")
    page.until(lambda: page.keys() == [])
    assert "No ship is like that now." in page.text("#empty")
    page.until(lambda: page.chip("at sea") == "0")
    outside(page, "UPDATE ship SET state = 'at sea' WHERE id IN (7, 9)")
    page.until(lambda: page.keys() == [7, 9])


def test_search(page: Page) -> None:
    """What is typed is searched for by the server, in the names of lines as well."""
    page.browser.find_element("id", "search").send_keys("gannet")
    page.until(lambda: page.keys() == [1, 3, 7, 11])

    outside(page, "UPDATE ship SET name = 'Gannet of Old' WHERE id = 4")
    page.until(lambda: "entered" in page.row(4))
    outside(page, "UPDATE line SET name = 'Tern Line' WHERE id = 1")
    page.until(lambda: page.keys() == [4])
    outside(page, "UPDATE ship SET name = 'Driftwood' WHERE id = 4")
    page.until(lambda: page.keys() == [])


def test_related_row(page: Page) -> None:
    """A line that is renamed changes all of its ships, and no other."""
    page.example("Rename a line")

    page.until(lambda: page.count('#ships tr[data-how="updated"]') == 4)
    assert all("Gannet & Co" in page.row(key) for key in (1, 3, 7, 11))
    page.until(lambda: "The feed: 4 rows updated." in page.text("#heard"))


def test_new_row(page: Page) -> None:
    """A row that was not there before appears, and its later changes too."""
    outside(page, "INSERT INTO ship (id, name) VALUES (100, '<b>Marigold</b> & co')")

    page.until(lambda: "created" in page.row(100))
    assert "<b>Marigold</b> & co" in page.row(100)
    outside(page, "UPDATE ship SET cargo = 9 WHERE id = 100")
    page.until(lambda: "9 t" in page.row(100))
    assert page.count("#ships b") == 0


def test_every_row(page: Page) -> None:
    """One statement that changes every row lights up every row, and is one sentence."""
    page.run("UPDATE ship SET cargo = cargo + 1")

    page.until(lambda: page.count('#ships tr[data-how="updated"]') == 12)
    page.until(lambda: "The feed: 12 rows updated." in page.text("#heard"))
    assert "12 changes seen · median" in page.text("#figures")


def test_more_rows_than_there_is_room_for(page: Page) -> None:
    """Of many rows the first are shown, it is said, and others take the room of those that go."""
    outside(
        page, "INSERT INTO ship (id, name) SELECT n, 'Ship ' || n FROM generate_series(201, 1200) n"
    )
    page.until(lambda: "the first 200 of 1,012 rows" in page.text("#figures"))
    assert page.row(388) != ""
    assert page.row(389) == ""

    outside(page, "DELETE FROM ship WHERE id BETWEEN 201 AND 388")
    page.until(lambda: page.row(389) != "")
    outside(page, "DELETE FROM ship WHERE id > 12")
    page.until(lambda: page.text("#figures").startswith("12 rows"))


def test_what_never_happened(page: Page) -> None:
    """A rollback and an update without a change light nothing up."""
    page.example("Rolled back")
    page.until(lambda: "ROLLBACK" in page.text("#result"))
    page.example("No change")
    page.until(lambda: "UPDATE 12" in page.text("#result"))
    outside(page, "UPDATE ship SET cargo = 66 WHERE id = 11")

    page.until(lambda: "66 t" in page.row(11))
    assert page.count("#ships tr[data-how]") == 1


def test_error_and_rows(page: Page) -> None:
    """PostgreSQL's objection and a result's rows are shown as text."""
    page.run("SELECT 1/0")
    page.until(lambda: "division by zero" in page.text("#result .error"))

    page.run("SELECT '<i>x</i>' AS one, NULL AS two")
    page.until(lambda: "<i>x</i>" in page.text("#result table"))
    assert "∅" in page.text("#result table")


def test_frames_can_be_paused(page: Page) -> None:
    """Paused, the log stands still while the table goes on; resumed, it goes on."""
    page.click("#pause")
    outside(page, "UPDATE ship SET cargo = 6 WHERE id = 11")
    page.until(lambda: "6 t" in page.row(11))

    assert '"cargo":6,' not in page.text("#log")
    assert "not shown" in page.text("#pause")
    page.click("#pause")
    assert page.text("#pause") == "Pause"
    outside(page, "UPDATE ship SET cargo = 7 WHERE id = 11")
    page.until(lambda: '"cargo":7,' in page.text("#log"))


def test_log_is_bounded(page: Page) -> None:
    """The log keeps the newest frames only."""
    for number in range(25):
        outside(page, f"UPDATE ship SET cargo = {number} + id")
    page.until(lambda: "35 t" in page.row(11))

    assert page.count("#log li") <= 200


def test_connection_is_made_again(page: Page) -> None:
    """A lost connection is said; what was missed is caught up, and the feed goes on."""
    script = "cut = true; for (const socket of sockets) socket.close()"
    page.browser.execute_script(script)
    page.until(lambda: page.text("#state") == "connection lost, trying again")
    outside(page, "UPDATE ship SET cargo = 8 WHERE id = 11")
    outside(page, "DELETE FROM ship WHERE id = 5")
    page.browser.execute_script("cut = false")

    page.until(lambda: page.text("#state") == "live" and "8 t" in page.row(11))
    assert page.count('#ships tr.lit[data-key="11"]') == 1
    page.until(lambda: page.row(5) == "")
    outside(page, "UPDATE ship SET cargo = 9 WHERE id = 11")
    page.until(lambda: "9 t" in page.row(11) and "updated" in page.row(11))
    # The browser itself reports each attempt that failed.
    page.browser.get_log("browser")


@pytest.mark.parametrize("dark", [False, True])
def test_phone(page: Page, dark: bool) -> None:
    """At 360 pixels nothing needs to be scrolled sideways, in the light and in the dark."""
    page.emulate(360, dark=dark)
    page.run("SELECT * FROM ship")
    page.until(lambda: page.count("#result table") == 1)
    outside(page, "UPDATE ship SET cargo = cargo + 1")
    page.until(lambda: page.count('#ships tr[data-how="updated"]') == 12)

    script = """
        const out = (e) => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll');
        return [document.documentElement.scrollWidth, [...document.querySelectorAll('*')].filter(out).length,
                document.querySelector('#ships').scrollWidth <= document.querySelector('#watch').clientWidth]
    """
    assert page.browser.execute_script(script) == [360, 0, True]


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(page: Page, dark: bool) -> None:
    """All text has a contrast of 4.5 to 1 at least, lit rows too, in the light and in the dark."""
    page.emulate(1280, dark=dark, calm=True)
    page.run("SELECT 1/0")
    page.until(lambda: page.text("#result .error"))
    outside(
        page,
        "UPDATE ship SET cargo = cargo + 1; DELETE FROM ship WHERE id = 5;"
        " INSERT INTO ship (id, name) VALUES (101, 'Marigold')",
    )
    all_kinds = """
        const lit = (how) => document.querySelector(`#ships tr.lit[data-how="${how}"]`);
        return ["updated", "deleted", "created"].every(lit)
    """
    page.until(lambda: page.browser.execute_script(all_kinds))

    assert page.browser.execute_script(CONTRAST) == []
    paper = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 128) is dark


def test_reduced_motion(page: Page) -> None:
    """Who wants no motion gets none: a lit row is still."""
    page.emulate(1280, calm=True)
    outside(page, "UPDATE ship SET cargo = 10 WHERE id = 11")
    page.until(lambda: page.count('#ships tr.lit[data-key="11"]'))

    assert page.browser.execute_script("return document.getAnimations().length") == 0


def test_everything_has_a_name(page: Page) -> None:
    """Every control has a name for who can't see it, and the headings are in order."""
    script = """
        const controls = [...document.querySelectorAll('button, input, textarea, [tabindex]')];
        const named = (e) => e.innerText?.trim() || e.labels?.length || e.getAttribute('aria-label');
        return [controls.filter((e) => !named(e)).length,
                [...document.querySelectorAll('h1, h2, h3')].map((e) => e.tagName).join(' ')]
    """
    assert page.browser.execute_script(script) == [0, "H1 H2 H2 H2 H2"]


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    """The page loads nothing from any other host."""
    script = (
        "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)"
    )
    hosts = set(page.browser.execute_script(script))

    assert hosts == {page.demo.url.removeprefix("http://").rstrip("/")}


def test_ctrl_c_under_an_open_page(browser: Chrome) -> None:
    """Ctrl-C ends the demo while a browser shows its page, and the page says so."""
    with demo() as started:
        page = Page(browser, started)
        browser.get(started.url)
        page.until(lambda: page.text("#state") == "live")
        code = started.process.stop(signal.SIGINT)

        assert code == 0
        assert "Traceback" not in started.process.output()
        assert not list(started.temporary.iterdir())
        page.until(lambda: page.text("#state") == "connection lost, trying again")
