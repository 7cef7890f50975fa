"""The tests' project, with what a test of a fault sets by the environment."""

from __future__ import annotations

import json
import os

from tests.project.settings import *  # noqa: F403

PGOBSERVE = json.loads(os.environ.get("PGOBSERVE_FAULTS", "{}"))
