CREATE OR REPLACE FUNCTION {schema}.outbox_turn(slot pg_catalog.int4) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $pgobserve$
BEGIN
  LOCK TABLE {schema}.outbox_state IN SHARE UPDATE EXCLUSIVE MODE;
  PERFORM setval('{schema}.outbox_gate', slot);
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
