DO $pgobserve$
DECLARE
  each pg_catalog.text;
BEGIN
  IF {only_unused} AND EXISTS (
      SELECT FROM pg_catalog.pg_proc AS p
       WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace('{schema}')
         AND p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype) THEN
    RETURN;  -- There are triggers that fill it, or may do so again.
  END IF;
  FOR each IN
    SELECT p.oid::pg_catalog.regprocedure
      FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.to_regnamespace('{schema}')
       AND p.proname OPERATOR(pg_catalog.=) ANY ({functions})
       AND p.prorettype OPERATOR(pg_catalog.<>) 'pg_catalog.trigger'::pg_catalog.regtype
  LOOP
    EXECUTE pg_catalog.format('DROP FUNCTION %s', each);
  END LOOP;
  DROP TABLE IF EXISTS {schema}.outbox, {schema}.outbox_0, {schema}.outbox_1, {schema}.outbox_2, {schema}.outbox_state;
  DROP SEQUENCE IF EXISTS {schema}.outbox_gate, {schema}.outbox_lost;
  IF {cursors_too} THEN
    DROP TABLE IF EXISTS {schema}.outbox_cursor;
  END IF;
END
$pgobserve$
