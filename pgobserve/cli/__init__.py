"""The sub-commands of ``manage.py pgobserve``."""
