"""What the oracle's models ask of other tests' databases."""

from __future__ import annotations

from django.contrib.auth.models import User


def test_user_is_deleted(transactional_db: None) -> None:
    """Deleting a user reads the oracle's tables, whatever test ran before."""
    User.objects.create(username="ann").delete()

    assert not User.objects.exists()
