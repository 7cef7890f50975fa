INSERT INTO {partition} (slot, xid, label, op, keys, old, new, at)
      VALUES ({slot}, pg_catalog.pg_current_xact_id(), {label}, {operation}, keys, old, new, at)
