DO $pgobserve$
DECLARE
  part pg_catalog.regclass;
BEGIN
  -- A statement on the root fires the root's triggers, one on a partition only the partition's.
  FOR part IN
    SELECT t.relid
      FROM pg_catalog.pg_partition_tree({root}::pg_catalog.regclass) AS t
      JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.relid
     WHERE t.level OPERATOR(pg_catalog.>) 0 AND c.relkind IN ('r', 'p')
  LOOP
    EXECUTE pg_catalog.format({statement}, part);
  END LOOP;
END
$pgobserve$
