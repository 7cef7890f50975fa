DO $pgobserve$
BEGIN
  -- Not "IF NOT EXISTS": that wants the right to create even where there is nothing to create.
  IF pg_catalog.to_regnamespace('pgobserve') IS NULL THEN
    CREATE SCHEMA pgobserve;
  END IF;
END
$pgobserve$
