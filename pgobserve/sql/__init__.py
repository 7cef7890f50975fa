"""Queries of watched rows: keys, keyed and full queries, reverse look-ups."""
