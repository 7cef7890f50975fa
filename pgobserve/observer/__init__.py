from __future__ import annotations

from pgobserve.observer.model import model_observer as model_observer
from pgobserve.observer.signal import observer as observer
