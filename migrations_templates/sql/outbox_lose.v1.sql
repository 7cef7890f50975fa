CREATE OR REPLACE FUNCTION {schema}.outbox_lose() RETURNS pg_catalog.void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $pgobserve$
BEGIN
  -- Remember that something of this transaction was not written: readers that have not seen the
  -- transaction yet begin again. The greatest id must win, so one session at a time may set it. The lock
  -- is the weakest that conflicts with itself, on a table that other roles have no right to lock, and
  -- nothing waits while it is held: rolling the block back gives it back at once. What a sequence was
  -- set to stays.
  LOCK TABLE {schema}.outbox_state IN SHARE UPDATE EXCLUSIVE MODE;
  PERFORM setval(
    '{schema}.outbox_lost',
    GREATEST(s.last_value, pg_current_xact_id()::text::int8))
    FROM {schema}.outbox_lost AS s;
  RAISE EXCEPTION 'pgobserve: roll back to give the lock back';
EXCEPTION WHEN raise_exception THEN
  NULL;
END
$pgobserve$
