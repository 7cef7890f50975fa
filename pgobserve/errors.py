"""
The errors that this package raises; users import them from ``pgobserve.exceptions``.

This module imports nothing, so that the pure parts can raise them.
"""

from __future__ import annotations


class PgObserveError(Exception):
    """Base of all errors of this package that are not replies to a client."""


class ConfigurationError(PgObserveError):
    """A setting is wrong."""


class TemplatesMissing(PgObserveError):
    """The SQL templates are neither in the installed package nor beside the checkout."""


class TriggerError(PgObserveError):
    """The write side failed; the message names the remedy."""


class PayloadInvalid(PgObserveError):
    """A notification on our channel that this version does not understand."""


class FeedUnavailable(PgObserveError):
    """The read side can't serve now: no LISTEN connection, or no database."""
