"""What consumers derive from to let clients subscribe; the names are DCRF's, lists aside."""

from __future__ import annotations

from pgobserve.observer.consumer import ObserverConsumerMixin
from pgobserve.observer.instance import ObserverModelInstanceMixin
from pgobserve.observer.list import ObserverModelListMixin

__all__ = ["ObserverConsumerMixin", "ObserverModelInstanceMixin", "ObserverModelListMixin"]
