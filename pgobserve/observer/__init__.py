from __future__ import annotations

from pgobserve.observer.signal import observer as observer
