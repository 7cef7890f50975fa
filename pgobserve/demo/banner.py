"""The demo's output in the terminal."""

from __future__ import annotations

import sys
import webbrowser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgobserve.demo.project.config import Config

TEMPLATE = """
  {bold}pgobserve demo{plain}   {url}

  {dim}Open the page, then change its tables from anywhere:{plain}

    {psql}

    UPDATE ship SET cargo = cargo + 25 WHERE name = 'Kittiwake';
    UPDATE line SET name = 'Gannet & Co' WHERE id = 1;
    DELETE FROM ship WHERE state = 'at sea';
    INSERT INTO ship (name) VALUES ('Marigold');

  {dim}The page has a box for SQL as well; only this machine can reach it.
  PostgreSQL is {server}.{plain}

  {dim}Stop with Ctrl-C.{plain}
"""


def starting(port: int, wanted: int) -> None:
    """Print that the demo starts, and the port if it is not the expected one."""
    if port != wanted:
        print(f"Port {wanted} is taken, so the page is on port {port}.", flush=True)
    print("Starting PostgreSQL and the page …", flush=True)


def ready(config: Config, *, open_browser: bool) -> None:
    """Print the page's address, and statements to try."""
    url = f"http://127.0.0.1:{config.port}/"
    print(text(config, url, colour=sys.stdout.isatty()), flush=True)
    if open_browser:
        webbrowser.open(url)


def text(config: Config, url: str, *, colour: bool) -> str:
    """Return the text, with or without a terminal's escapes."""
    bold, dim, plain = ("\033[1m", "\033[2m", "\033[0m") if colour else ("", "", "")
    return TEMPLATE.format(
        bold=bold, dim=dim, plain=plain, url=url, psql=config.psql, server=config.server
    )
