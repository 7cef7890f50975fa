"""What consumers derive from to let clients subscribe; the names are DCRF's, lists aside."""

from __future__ import annotations

from pgobserve._former_names import resolver
from pgobserve.decorators import action
from pgobserve.generics import GenericAsyncAPIConsumer
from pgobserve.observer.consumer import ObserverConsumerMixin
from pgobserve.observer.handlers import ObserverAPIConsumerMetaclass, _GenericModelObserver
from pgobserve.observer.instance import ObserverModelInstanceMixin
from pgobserve.observer.list import ObserverModelListMixin
from pgobserve.observer.model_observer import ModelObserver

__all__ = [
    "GenericAsyncAPIConsumer",
    "ModelObserver",
    "ObserverAPIConsumerMetaclass",
    "ObserverConsumerMixin",
    "ObserverModelInstanceMixin",
    "ObserverModelListMixin",
    "_GenericModelObserver",
    "action",
]

__getattr__ = resolver(__name__)
