DO $pgobserve$
BEGIN
  -- Not "IF NOT EXISTS": that wants the right to create even where there is nothing to create.
  IF pg_catalog.to_regnamespace('{schema}') IS NULL THEN
    CREATE SCHEMA {schema};
  END IF;
END
$pgobserve$
