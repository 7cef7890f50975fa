CREATE OR REPLACE FUNCTION pgobserve.outbox_measure(slot pg_catalog.int8) RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  -- One slot may take a third of what all may. Full, it is closed until the next rotation.
  IF pg_catalog.pg_total_relation_size(('pgobserve.outbox_' || slot)::pg_catalog.regclass)
      < (SELECT s.max_bytes / 3 FROM pgobserve.outbox_state AS s) THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock({namespace}, {lock});
  PERFORM pg_catalog.setval('pgobserve.outbox_gate', slot + 3)
    FROM pgobserve.outbox_gate AS g WHERE g.last_value = slot;
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
