DO $pgobserve$
BEGIN
  IF pg_catalog.to_regclass('{schema}.outbox') IS NOT NULL THEN
    RETURN;
  END IF;
  CREATE TABLE {schema}.outbox (
    slot pg_catalog.int2 NOT NULL,
    xid pg_catalog.xid8 NOT NULL,
    label pg_catalog.text NOT NULL,
    op pg_catalog.text NOT NULL,
    keys pg_catalog.json,
    old pg_catalog.json,
    new pg_catalog.json,
    at pg_catalog.timestamptz NOT NULL
  ) PARTITION BY LIST (slot);
  -- Rows go by TRUNCATE alone: there is never anything to vacuum.
  CREATE TABLE {schema}.outbox_0 PARTITION OF {schema}.outbox FOR VALUES IN (0)
    WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
  CREATE TABLE {schema}.outbox_1 PARTITION OF {schema}.outbox FOR VALUES IN (1)
    WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
  CREATE TABLE {schema}.outbox_2 PARTITION OF {schema}.outbox FOR VALUES IN (2)
    WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false);
  CREATE INDEX outbox_xid ON {schema}.outbox (xid);
  -- The slot that is written now; 3 more while it is full and nothing is written. A sequence,
  -- because what is set there holds at once, for everybody, whatever becomes of a transaction.
  CREATE SEQUENCE {schema}.outbox_gate MINVALUE 0 OWNED BY {schema}.outbox.slot;
  PERFORM pg_catalog.setval('{schema}.outbox_gate', 0);
  -- The greatest transaction id of which something was not written.
  CREATE SEQUENCE {schema}.outbox_lost MINVALUE 0 OWNED BY {schema}.outbox.xid;
  PERFORM pg_catalog.setval('{schema}.outbox_lost', 0);
  CREATE TABLE {schema}.outbox_state (
    only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
    horizon pg_catalog.pg_snapshot NOT NULL,
    rotated_at pg_catalog.timestamptz NOT NULL,
    empty_slot pg_catalog.int2,
    quiet_at pg_catalog.timestamptz[] NOT NULL,
    quiet pg_catalog.pg_snapshot[] NOT NULL,
    max_bytes pg_catalog.int8 NOT NULL
  ) WITH (fillfactor = 10, autovacuum_enabled = false);
  -- Two slots have never been written, and may be written as soon as they are wanted.
  INSERT INTO {schema}.outbox_state (horizon, rotated_at, quiet_at, quiet, max_bytes)
    SELECT s.now, pg_catalog.clock_timestamp(), '{{NULL,-infinity,-infinity}}', ARRAY[NULL, s.now, s.now], {max_bytes}
      FROM pg_catalog.pg_current_snapshot() AS s(now);
  REVOKE ALL ON {schema}.outbox, {schema}.outbox_0, {schema}.outbox_1, {schema}.outbox_2,
    {schema}.outbox_state FROM PUBLIC;
  REVOKE ALL ON SEQUENCE {schema}.outbox_gate, {schema}.outbox_lost FROM PUBLIC;
END
$pgobserve$
