"""Cohorts: which subscriptions may share one query and one serialization."""
