DO $pgobserve$
BEGIN
  -- The comment is there for its lock, which lasts as long as the transaction, and which only the
  -- schema's owner can hold. Any role could hold an advisory lock.
  IF pg_catalog.to_regnamespace('{schema}') IS NOT NULL THEN
    COMMENT ON SCHEMA {schema} IS {comment};
  END IF;
EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN
  NULL;  -- It belongs to another role, or is gone by now.
END
$pgobserve$
