"""In which order what a sub-command says is read."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command


class Stream(io.StringIO):
    """Tells whether it was flushed."""

    flushed = False

    def flush(self) -> None:
        self.flushed = True


def test_output_before_error(transactional_db: None) -> None:
    """What was found is written out before the error that follows it, be it to a file or a pipe."""
    out = Stream()
    with pytest.raises(CommandError):
        call_command("pgobserve", "sql", "no.Model", stdout=out)

    assert out.flushed
