"""How Sphinx builds the documentation: ``make docs``. It needs no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# The reference is made of docstrings, and models and serializers can't be imported without a
# project: the demo's will do. No database is asked.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pgobserve.demo.project.settings")
django.setup()

from pgobserve import __version__  # noqa: E402 (after django.setup)

project = "pgobserve"
author = "the pgobserve developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
# Types of other packages, whose documentation is not at hand. Ours are not excused.
nitpick_ignore_regex = [("py:.*", r"(?!pgobserve\.).*")]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "furo"
html_title = f"pgobserve {release}"
html_theme_options = {"navigation_with_keys": True}
