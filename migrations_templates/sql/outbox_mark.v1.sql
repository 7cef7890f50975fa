CREATE OR REPLACE FUNCTION pgobserve.outbox_mark(label pg_catalog.text, op pg_catalog.text)
  RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  -- One row for a whole table: TRUNCATE, or changes that were muted.
  INSERT INTO pgobserve.outbox (slot, xid, label, op, at)
    SELECT g.last_value, pg_current_xact_id(), $1, $2, clock_timestamp()
      FROM pgobserve.outbox_gate AS g WHERE g.last_value < 3;
  IF NOT FOUND THEN
    PERFORM pgobserve.outbox_lose();
  END IF;
END
$pgobserve$
