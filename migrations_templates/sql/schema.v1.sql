DO $pgobserve$
DECLARE
  strange pg_catalog.text;
BEGIN
  -- Not "IF NOT EXISTS": that wants the right to create even where there is nothing to create.
  IF pg_catalog.to_regnamespace('{schema}') IS NULL THEN
    BEGIN
      CREATE SCHEMA {schema};
    EXCEPTION WHEN unique_violation OR duplicate_schema THEN
      NULL;  -- Another session was faster.
    END;
  END IF;
  -- Whatever is in this schema may run with the rights of the role that installs. So nothing in it may
  -- be in the hands of a role that has fewer.
  SELECT pg_catalog.string_agg(s.what, '; ') INTO strange FROM ({strangers}) AS s(what);
  IF strange IS NOT NULL THEN
    RAISE EXCEPTION 'pgobserve: the schema {schema} is not safe to install into as %: %', CURRENT_USER, strange
      USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Drop the schema if nothing in it is needed, or give it and all that is in it to the role that installs.';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace AS n
              WHERE n.nspname OPERATOR(pg_catalog.=) '{schema}'
                AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')) THEN
    -- Without USAGE a role can't even name what is in here, and so it can't lock it either.
    REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
    COMMENT ON SCHEMA {schema} IS {comment};
  END IF;
END
$pgobserve$
