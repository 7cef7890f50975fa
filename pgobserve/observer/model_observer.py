"""DCRF's name of the module that has :class:`ModelObserver`."""

from __future__ import annotations

from pgobserve.observer.model import Action as Action
from pgobserve.observer.model import ModelObserver as ModelObserver
