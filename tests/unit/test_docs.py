"""The documentation is complete, and its links and code hold."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from pgobserve import checks, conf, exceptions, settings
from pgobserve.listen.listener import ListenerState
from pgobserve.load.load_log import LoaderState
from pgobserve.management.commands.pgobserve import SUBCOMMANDS
from pgobserve.monitoring import FeedState

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")])

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
#: Where the documentation is published; the README links there, for it is shown elsewhere too.
SITE = "https://pgobserve.readthedocs.io/en/latest/"
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
TEST = re.compile(r"`([\w/]*test_\w+\.py)?:{0,2}((?:Test\w+|test_\w+)(?:::\w+)*)?`")


def prose(page: Path) -> str:
    """Return a page without its code."""
    return FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    """Return the headings of a page, without their markup."""
    return [heading.replace("`", "") for heading in HEADING.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """Return what a link to a page may have after its ``#``, as GitHub and MyST make it."""
    slugs = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings(page)}
    return slugs | set(TARGET.findall(page.read_text()))


def links(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead to other files of the repository, or into itself."""
    for link in LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", link):
            yield link


def code(page: Path) -> list[str]:
    """Return the blocks of Python on a page."""
    return [body for language, body in FENCE.findall(page.read_text()) if language == "python"]


@pytest.mark.parametrize("name", [each.name for each in fields(conf.Settings)])
def test_setting_is_documented(name: str) -> None:
    """Every setting has a heading."""
    assert name in headings(REFERENCE / "settings.md")


@pytest.mark.parametrize("name", settings.DEFAULTS)
def test_dcrf_setting_is_documented(name: str) -> None:
    """Every key of DCRF's setting is explained."""
    assert f"`{name}`" in (DOCS / "how-to" / "migrate-from-dcrf.md").read_text()


@pytest.mark.parametrize(
    "identifier", [checks.BAD_SETTINGS, checks.NOT_CHECKED, *checks.STATES.values()]
)
def test_check_is_documented(identifier: str) -> None:
    """Every system check has a heading."""
    assert identifier in headings(REFERENCE / "checks.md")


@pytest.mark.parametrize("name", exceptions.__all__)
def test_exception_is_documented(name: str) -> None:
    """Every public exception is in the reference."""
    assert f".. autoexception:: {name}" in (REFERENCE / "exceptions.md").read_text()


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_command_is_documented(name: str) -> None:
    """Every sub-command has a heading."""
    assert name in headings(REFERENCE / "commands.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Links to files of the repository lead to files, and to headings in them."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_links_are_absolute() -> None:
    """The README's links work on the package index, and those to the documentation lead to a page."""
    found = LINK.findall(prose(ROOT / "README.md"))
    published = [link.removeprefix(SITE) for link in found if link.startswith(SITE)]

    assert [link for link in found if not link.startswith("https://")] == []
    assert len(published) >= 10
    for page in published:
        path = page.replace("_images/", "images/").replace(".html", ".md")
        assert (DOCS / path).exists(), page


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_form_is_valid(name: str) -> None:
    """An issue form has what is required of one, and each question has an id of its own."""
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    questions = [part for part in form["body"] if part["type"] != "markdown"]

    assert form["name"]
    assert form["description"]
    assert all(part["attributes"]["label"] for part in questions)
    assert len({part["id"] for part in questions}) == len(questions) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles(page: Path) -> None:
    """Python on a page is Python."""
    for block in code(page):
        if not block.startswith(" "):  # an excerpt from the middle of something
            ast.parse(block)


def test_named_tests_exist() -> None:
    """The page on security names the tests that show what it says."""
    tests = {path: path.read_text() for path in ROOT.glob("tests/**/test_*.py")}
    named = [
        each
        for each in TEST.findall((DOCS / "explanation" / "security.md").read_text())
        if any(each)
    ]

    assert len(named) >= 15
    for file, names in named:
        sources = (
            [text for path, text in tests.items() if str(path).endswith(f"/{file}")]
            if file
            else [*tests.values()]
        )
        defined = [
            re.compile(rf"^ *(?:class|(?:async )?def) {name}\b", re.MULTILINE)
            for name in names.split("::")
        ]
        assert any(all(each.search(text) for each in defined if names) for text in sources), (
            file,
            names,
        )


def test_example_of_monitoring_is_complete() -> None:
    """The example of what ``feeds()`` returns has every field."""
    page = (DOCS / "how-to" / "monitor.md").read_text()
    (block,) = (body for language, body in FENCE.findall(page) if language == "json")
    (feed,) = json.loads(block)["feeds"]

    assert list(feed) == [each.name for each in fields(FeedState)]
    assert list(feed["listener"]) == [each.name for each in fields(ListenerState)]
    assert list(feed["loader"]) == [each.name for each in fields(LoaderState)]


def test_readme_has_code() -> None:
    """The patterns above do find code, links and headings."""
    readme = ROOT / "README.md"

    assert len(code(readme)) >= 4
    assert len(list(links(DOCS / "index.md"))) >= 4
    assert "Five minutes" in headings(readme)
