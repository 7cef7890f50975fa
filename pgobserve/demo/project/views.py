"""The page, and its box for SQL."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from pgobserve.demo.project import config
from pgobserve.demo.project.examples import EXAMPLES
from pgobserve.demo.project.fleet import STATES
from pgobserve.demo.project.statement import execute

if TYPE_CHECKING:
    from django.http import HttpRequest

#: The most characters of a statement.
MOST_CHARACTERS = 20_000


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Render the page."""
    shown = {"config": config.get(), "examples": EXAMPLES, "states": STATES}
    response = render(request, "harbour/index.html", shown)
    response.headers["Content-Security-Policy"] = _policy()
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
def run(request: HttpRequest) -> HttpResponse:
    """
    Run a statement from the demo's own page.

    Browsers send the origin of a POST, and send JSON to another website only after a preflight request,
    which the demo rejects.
    """
    if request.headers.get("Origin") not in config.origins():
        return _refuse(403, "Only the demo's own page may run statements.")
    if request.content_type != "application/json":
        return _refuse(415, "Send JSON.")
    try:
        text = json.loads(request.body)["sql"]
    except (ValueError, KeyError, TypeError):
        return _refuse(400, 'Send {"sql": "…"}.')
    if not isinstance(text, str) or not text.strip():
        return _refuse(400, "There is no statement to run.")
    if len(text) > MOST_CHARACTERS or "\0" in text:
        return _refuse(
            400, f"A statement has at most {MOST_CHARACTERS} characters, none of them NUL."
        )
    return JsonResponse(asdict(execute(text, config.get().database)))


def _refuse(status: int, sentence: str) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status)


def _policy() -> str:
    sockets = " ".join(origin.replace("http:", "ws:") for origin in config.origins())
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
