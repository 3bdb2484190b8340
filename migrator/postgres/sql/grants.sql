-- The statements that give %(to)s (oid) the owner, privileges and comment of %(from)s (oid), once it
-- stands in the place and under the name of the latter. Grants by others than the owner come last.
WITH name AS (
    SELECT format('%%I.%%I', nspname, relname) AS live
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(from)s
), old AS (
    SELECT c.*, (SELECT array_agg(privilege_type ORDER BY privilege_type)
                   FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))
                  WHERE grantee = c.relowner) AS of_owner
      FROM pg_class c WHERE oid = %(from)s
), new AS (
    SELECT c.*, (SELECT array_agg(privilege_type ORDER BY privilege_type)
                   FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)))
                  WHERE grantee = c.relowner) AS of_owner
      FROM pg_class c WHERE oid = %(to)s
), granted AS (
    SELECT 3 AS step, ordinality AS place, grantor, grantee, is_grantable, privilege_type AS privilege
      FROM old, aclexplode(old.relacl) WITH ORDINALITY WHERE grantee <> old.relowner
    UNION ALL
    SELECT 4, attnum * 1000 + ordinality, grantor, grantee, is_grantable,
           format('%%s (%%I)', privilege_type, attname)
      FROM pg_attribute a, aclexplode(a.attacl) WITH ORDINALITY
     WHERE attrelid = %(from)s AND attnum > 0 AND NOT attisdropped
       AND EXISTS (SELECT FROM pg_attribute b
                    WHERE b.attrelid = %(to)s AND b.attname = a.attname AND NOT b.attisdropped)
)
SELECT statement FROM (
    SELECT 0 AS step, 0::bigint AS place, format('ALTER TABLE %%s OWNER TO %%I', live, rolname) AS statement
      FROM name, old JOIN pg_roles r ON r.oid = old.relowner
     WHERE old.relowner <> (SELECT relowner FROM new)
    UNION ALL
    -- What it was granted in a former life, and what was revoked since, must not come back.
    SELECT 1, 0, format('REVOKE ALL ON TABLE %%s FROM %%s CASCADE', live,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
      FROM name, new, LATERAL (
           SELECT grantee FROM aclexplode(new.relacl)
           UNION SELECT e.grantee FROM pg_attribute a, aclexplode(a.attacl) e
                  WHERE a.attrelid = new.oid) formerly
     WHERE grantee <> new.relowner
    UNION ALL
    SELECT 2, 0, format('REVOKE ALL ON TABLE %%s FROM %%s', live, old.relowner::regrole)
      FROM name, old, new WHERE old.of_owner IS DISTINCT FROM new.of_owner
    UNION ALL
    SELECT 2, 1, format('GRANT %%s ON TABLE %%s TO %%s', array_to_string(old.of_owner, ', '), live,
                        old.relowner::regrole)
      FROM name, old, new WHERE old.of_owner IS DISTINCT FROM new.of_owner AND old.of_owner IS NOT NULL
    UNION ALL
    SELECT step + CASE WHEN grantor = relowner THEN 0 ELSE 10 END, place,
           format(CASE WHEN grantor = relowner THEN '%%s' ELSE 'SET LOCAL ROLE %%2$s; %%1$s; RESET ROLE' END,
                  format('GRANT %%s ON TABLE %%s TO %%s%%s', privilege, live,
                         CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                         CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
                  grantor::regrole)
      FROM name, old, granted
    UNION ALL
    SELECT 5, 0, format('COMMENT ON TABLE %%s IS %%L', live, obj_description(%(from)s, 'pg_class'))
      FROM name
     WHERE obj_description(%(from)s, 'pg_class') IS NOT NULL
       AND obj_description(%(to)s, 'pg_class') IS NULL
) statements ORDER BY step, place
