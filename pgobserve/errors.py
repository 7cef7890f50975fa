"""
The errors that this package raises; ``pgobserve.exceptions`` shows them to users.

::

    PgObserveError
     ├─ ConfigurationError      the settings can't be used as they are
     ├─ TemplatesMissing        the installation lacks its SQL templates
     ├─ TriggerError            the write side could not do what it was asked
     ├─ PayloadInvalid          a notification that is none of ours, or garbled
     └─ FeedUnavailable         the read side can't serve now

They depend on nothing, so that the pure parts can raise them.
"""

from __future__ import annotations


class PgObserveError(Exception):
    """Base of all errors of this package that are not answers to a client."""


class ConfigurationError(PgObserveError):
    """The settings can't be used as they are."""


class TemplatesMissing(PgObserveError):
    """The SQL templates are neither in the installed package nor beside the checkout."""


class TriggerError(PgObserveError):
    """The write side could not do what it was asked; the message says what to do."""


class PayloadInvalid(PgObserveError):
    """A notification on our channel that this version does not understand."""


class FeedUnavailable(PgObserveError):
    """The read side can't serve now: no LISTEN connection, or no database."""
