DROP FUNCTION IF EXISTS pgobserve.{function}() CASCADE
