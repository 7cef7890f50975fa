"""Reads rows and lists, and renders them, in the loader's threads."""
