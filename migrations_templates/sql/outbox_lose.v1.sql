CREATE OR REPLACE FUNCTION {schema}.outbox_lose() RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgobserve$
BEGIN
  -- Remember that something of this transaction was not written: readers that have not seen the
  -- transaction yet begin again. The greatest id must win, so only one may set it at a time; rolling
  -- the block back gives the lock back at once, and what a sequence was set to stays.
  PERFORM pg_advisory_xact_lock({namespace}, {lock});
  PERFORM setval(
    '{schema}.outbox_lost',
    GREATEST(s.last_value, pg_current_xact_id()::text::int8))
    FROM {schema}.outbox_lost AS s;
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
