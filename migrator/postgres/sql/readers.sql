-- The statements that let whoever reads the table %(from)s (oid) read the table of schema %(schema)s and of the
-- same name, beside it. None where policies hide rows of the former: the latter has none yet.
SELECT statement
  FROM (SELECT DISTINCT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE e.grantee::regrole::text END AS reader, relname
          FROM pg_class c, aclexplode(c.relacl) e
         WHERE c.oid = %(from)s AND NOT c.relrowsecurity
           AND e.privilege_type = 'SELECT' AND e.grantee <> c.relowner) AS readers,
       LATERAL (VALUES (format('GRANT USAGE ON SCHEMA %%I TO %%s', %(schema)s::text, reader)),
                       (format('GRANT SELECT ON TABLE %%I.%%I TO %%s', %(schema)s::text, relname, reader))) AS v (statement)
 ORDER BY reader, statement
