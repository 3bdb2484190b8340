-- The statements that give %(to)s (oid) the owner, privileges and comments of %(from)s (oid).
-- Both names are qualified by format %%I; the owner's own privileges follow from owning.
WITH name AS (
    SELECT format('%%I.%%I', nspname, relname) AS live
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(to)s
), old AS (SELECT * FROM pg_class WHERE oid = %(from)s)
SELECT statement FROM (
    SELECT 0 AS step, 0::bigint AS place, format('ALTER TABLE %%s OWNER TO %%I', live, rolname) AS statement
      FROM name, old JOIN pg_roles r ON r.oid = old.relowner
     WHERE old.relowner <> (SELECT relowner FROM pg_class WHERE oid = %(to)s)
    UNION ALL
    -- What it was granted in a former life, and what was revoked since, must not come back.
    SELECT 1, 0, format('REVOKE ALL ON TABLE %%s FROM %%s', live,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
      FROM name, pg_class new, LATERAL (
           SELECT grantee FROM aclexplode(new.relacl)
           UNION SELECT e.grantee FROM pg_attribute a, aclexplode(a.attacl) e
                  WHERE a.attrelid = new.oid) formerly
     WHERE new.oid = %(to)s AND grantee <> new.relowner
    UNION ALL
    SELECT 2, ordinality, format('GRANT %%s ON TABLE %%s TO %%s%%s', privilege_type, live,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
               CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM name, old, aclexplode(old.relacl) WITH ORDINALITY
     WHERE grantee <> old.relowner
    UNION ALL
    SELECT 3, attnum, format('GRANT %%s (%%I) ON TABLE %%s TO %%s%%s', privilege_type, attname, live,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
               CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM name, pg_attribute a, aclexplode(a.attacl)
     WHERE attrelid = %(from)s AND attnum > 0 AND NOT attisdropped
       AND EXISTS (SELECT FROM pg_attribute b
                    WHERE b.attrelid = %(to)s AND b.attname = a.attname AND NOT b.attisdropped)
    UNION ALL
    SELECT 4, 0, format('COMMENT ON TABLE %%s IS %%L', live, obj_description(%(from)s, 'pg_class'))
      FROM name
     WHERE obj_description(%(from)s, 'pg_class') IS NOT NULL
       AND obj_description(%(to)s, 'pg_class') IS NULL
) statements ORDER BY step, place
