DO $pgobserve$
BEGIN
  DROP SCHEMA IF EXISTS {schema} RESTRICT;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
  NULL;  -- Other tables still use it, or it belongs to another role.
END
$pgobserve$
