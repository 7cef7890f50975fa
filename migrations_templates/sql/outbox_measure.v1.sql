CREATE OR REPLACE FUNCTION {schema}.outbox_measure(slot pg_catalog.int8) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  IF {schema}.outbox_fits(slot, 0) THEN
    RETURN;
  END IF;
  -- Full: closed until the next rotation.
  PERFORM pg_advisory_xact_lock({namespace}, {lock});
  PERFORM setval('{schema}.outbox_gate', slot + 3)
    FROM {schema}.outbox_gate AS g WHERE g.last_value = slot;
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
