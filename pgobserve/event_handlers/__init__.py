"""Events: model observers, signal observers, worker streams."""
