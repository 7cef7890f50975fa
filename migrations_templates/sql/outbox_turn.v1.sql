CREATE OR REPLACE FUNCTION {schema}.outbox_turn(slot pg_catalog.int4) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  PERFORM pg_advisory_xact_lock({namespace}, {lock});
  PERFORM setval('{schema}.outbox_gate', slot);
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
