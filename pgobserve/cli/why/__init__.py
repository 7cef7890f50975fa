"""``pgobserve why``: which subscribers a change of a row reaches."""
