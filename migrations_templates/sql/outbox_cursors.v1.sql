DO $pgobserve$
BEGIN
  IF pg_catalog.to_regclass('{schema}.outbox_cursor') IS NOT NULL THEN
    RETURN;
  END IF;
  -- Where readers are that go on after a restart: all that is visible in "seen", and of what became
  -- visible until "until" the transactions that wrote last before one of them. The session that has a
  -- cursor is named in its row and not by an advisory lock, which any role could take.
  CREATE TABLE {schema}.outbox_cursor (
    name pg_catalog.text PRIMARY KEY,
    seen pg_catalog.pg_snapshot NOT NULL,
    until pg_catalog.pg_snapshot,
    after_at pg_catalog.int8,
    after_xid pg_catalog.int8,
    moved_at pg_catalog.timestamptz NOT NULL,
    pid pg_catalog.int4,
    role pg_catalog.oid,
    connected_at pg_catalog.timestamptz
  ) WITH (fillfactor = 50);
  REVOKE ALL ON {schema}.outbox_cursor FROM PUBLIC;
END
$pgobserve$
