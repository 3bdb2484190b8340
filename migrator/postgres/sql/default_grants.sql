-- The statements that give %(to)s (oid) what ALTER DEFAULT PRIVILEGES promises to tables that are
-- created in schema %(schema)s: ours was created in another schema and moved there.
SELECT format('GRANT %%s ON TABLE %%I.%%I TO %%s%%s', privilege_type, n.nspname, c.relname,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS statement
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_default_acl d ON d.defaclrole = c.relowner AND d.defaclobjtype = 'r'
  JOIN pg_namespace s ON s.oid = d.defaclnamespace AND s.nspname = %(schema)s,
       aclexplode(d.defaclacl)
 WHERE c.oid = %(to)s AND grantee <> c.relowner
 ORDER BY 1
