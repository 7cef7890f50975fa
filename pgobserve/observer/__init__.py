from __future__ import annotations

# First the modules of these names, for whoever imports them by DCRF's paths: importing one later
# would put it in the decorator's place.
import pgobserve.observer.model_observer
import pgobserve.observer.observer  # noqa: F401
from pgobserve.event_handlers.model_events import model_observer as model_observer
from pgobserve.event_handlers.signal_observer import observer as observer
