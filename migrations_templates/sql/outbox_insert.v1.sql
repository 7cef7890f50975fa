INSERT INTO {partition} (slot, xid, label, op, keys, old, new, at)
      VALUES ({slot}, pg_catalog.pg_current_xact_id(), {label}, {operation}, keys::pg_catalog.json, before::pg_catalog.json, after::pg_catalog.json, at)
