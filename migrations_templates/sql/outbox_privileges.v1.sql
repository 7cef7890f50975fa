REVOKE ALL ON FUNCTION {schema}.outbox_lose(), {schema}.outbox_fits(pg_catalog.int8, pg_catalog.int8),
  {schema}.outbox_measure(pg_catalog.int8), {schema}.outbox_mark(pg_catalog.text, pg_catalog.text), {schema}.outbox_turn(pg_catalog.int4),
  {schema}.outbox_empty(pg_catalog.int4, pg_catalog.pg_snapshot), {schema}.outbox_rotate(pg_catalog.float8)
  FROM PUBLIC
