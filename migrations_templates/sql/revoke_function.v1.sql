REVOKE ALL ON FUNCTION pgobserve.{function}() FROM PUBLIC
