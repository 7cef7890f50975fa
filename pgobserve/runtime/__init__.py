"""Builds the stages and owns them."""
