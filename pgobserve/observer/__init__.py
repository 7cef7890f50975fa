from __future__ import annotations

# The modules of these names come first. DCRF's paths name them, and a later import would put them in the
# decorators' place.
import pgobserve.observer.model_observer
import pgobserve.observer.observer  # noqa: F401
from pgobserve._former_names import resolver
from pgobserve.event_handlers.model_events import ModelObserver as ModelObserver
from pgobserve.event_handlers.model_events import model_observer as model_observer
from pgobserve.event_handlers.signal_observer import Observer as Observer
from pgobserve.event_handlers.signal_observer import observer as observer

__getattr__ = resolver(__name__)
