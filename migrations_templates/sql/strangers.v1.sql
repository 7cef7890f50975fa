SELECT pg_catalog.concat(o.what, ' belongs to ', pg_catalog.quote_ident(r.rolname))
          FROM (SELECT pg_catalog.pg_describe_object('pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 0), n.nspowner
                  FROM pg_catalog.pg_namespace AS n
                 WHERE n.nspname OPERATOR(pg_catalog.=) '{schema}'
                UNION ALL
                SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0), s.refobjid
                  FROM pg_catalog.pg_depend AS d
                  JOIN pg_catalog.pg_shdepend AS s ON s.classid OPERATOR(pg_catalog.=) d.classid AND s.objid OPERATOR(pg_catalog.=) d.objid
                  JOIN pg_catalog.pg_database AS b ON b.oid OPERATOR(pg_catalog.=) s.dbid
                  JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
                 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                   AND n.nspname OPERATOR(pg_catalog.=) '{schema}'
                   AND b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                   AND s.deptype OPERATOR(pg_catalog.=) 'o') AS o(what, owner)
          JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) o.owner
         WHERE NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) {role}
        UNION ALL
        SELECT pg_catalog.concat(coalesce(pg_catalog.quote_ident(r.rolname), 'every role'), ' may create in it')
          FROM pg_catalog.pg_namespace AS n
         CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
          LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.grantee
         WHERE n.nspname OPERATOR(pg_catalog.=) '{schema}' AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
           AND r.rolsuper IS NOT TRUE AND r.rolname OPERATOR(pg_catalog.<>) {role} IS NOT FALSE
