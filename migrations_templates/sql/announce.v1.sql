SELECT pg_catalog.pg_notify({channel}, pg_catalog.concat({head}, pg_catalog.pg_current_xact_id(), {keys_follow}, 'null}}'))
 WHERE pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) {full}::pg_catalog.float8
