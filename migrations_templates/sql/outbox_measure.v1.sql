CREATE OR REPLACE FUNCTION {schema}.outbox_measure(slot pg_catalog.int8) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $pgobserve$
BEGIN
  IF {schema}.outbox_fits(slot, 0) THEN
    RETURN;
  END IF;
  -- Full: closed until the next rotation.
  LOCK TABLE {schema}.outbox_state IN SHARE UPDATE EXCLUSIVE MODE;
  PERFORM setval('{schema}.outbox_gate', slot + 3)
    FROM {schema}.outbox_gate AS g WHERE g.last_value = slot;
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
