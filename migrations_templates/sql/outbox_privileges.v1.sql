REVOKE ALL ON FUNCTION pgobserve.outbox_lose(), pgobserve.outbox_fits(pg_catalog.int8, pg_catalog.int8),
  pgobserve.outbox_measure(pg_catalog.int8), pgobserve.outbox_mark(pg_catalog.text, pg_catalog.text), pgobserve.outbox_turn(pg_catalog.int4),
  pgobserve.outbox_empty(pg_catalog.int4, pg_catalog.pg_snapshot), pgobserve.outbox_rotate(pg_catalog.float8)
  FROM PUBLIC
