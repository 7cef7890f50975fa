INSERT INTO {partition} (slot, xid, label, op, keys, old, new, at)
      VALUES ({slot}, pg_catalog.pg_current_xact_id(), {label}, {operation}, pg_catalog.split_part(images, {separator}, 1)::pg_catalog.json, {old}, {new}, at)
