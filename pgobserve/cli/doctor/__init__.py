"""``pgobserve doctor``: what commonly goes wrong in production."""
