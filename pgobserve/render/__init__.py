"""From an instance to the JSON that a cohort receives."""
