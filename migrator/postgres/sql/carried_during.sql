-- The statements by which everything that hangs on a live table's oid (%(from)s) goes over to the table
-- that takes its place (oid %(to)s, or null where it is not made yet): phase, then the statement. The
-- text is printed before the swap, with an empty search_path, and so means the new table afterwards.
-- %(parked)s is the schema that the live table goes to, %(schema)s the one that the new table comes from;
-- %(columns)s are the columns that the new one has. What they name they lock, in this order:
-- phase "view": statements that lock one view each; "lock": tables; "drop": before the move;
-- "out", "in": right after it; "make": at the end; "validate": after the commit.
WITH rel AS (
    SELECT c.oid, c.relkind, c.relowner, c.relnamespace, c.reloptions, c.relrowsecurity, c.relforcerowsecurity,
           format('%%I.%%I', n.nspname, c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
), live AS (SELECT * FROM rel WHERE oid = %(from)s),
next AS (SELECT * FROM rel WHERE oid = %(to)s),
foreign_key AS (
    SELECT k.oid, k.conname, k.convalidated, k.conrelid, child.name AS child, parent.name AS parent,
           pg_get_constraintdef(k.oid) AS said, obj_description(k.oid, 'pg_constraint') AS comment,
           k.conrelid <> %(from)s AS from_other
      FROM pg_constraint k
      JOIN rel child ON child.oid = k.conrelid
      JOIN rel parent ON parent.oid = k.confrelid
     WHERE k.contype = 'f' AND k.conparentid = 0 AND %(from)s IN (k.conrelid, k.confrelid)
), rewrite AS (
    SELECT w.oid, w.rulename, w.ev_enabled, v.oid AS rel, v.name, v.relkind, v.relowner, v.reloptions,
           w.rulename = '_RETURN' AS is_view,
           CASE WHEN v.relowner = quote_ident(current_user)::regrole THEN '%%s'
                ELSE format('SET LOCAL ROLE %%s; %%%%s; RESET ROLE', replace(v.relowner::regrole::text, '%%', '%%%%')) END AS as_owner
      FROM pg_rewrite w
      JOIN rel v ON v.oid = w.ev_class
     WHERE v.relkind IN ('v', 'r')
       AND (v.oid = %(from)s
            OR EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(from)s))
), policy AS (
    SELECT p.*, t.name, p.polrelid = %(from)s AS own,
           (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE r::regrole::text END, ', ') FROM unnest(polroles) AS r) AS roles,
           coalesce(' USING (' || pg_get_expr(polqual, polrelid) || ')', '')
           || coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', '') AS tail
      FROM pg_policy p JOIN rel t ON t.oid = p.polrelid
     WHERE p.polrelid = %(from)s
        OR EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(from)s)
), trigger AS (
    SELECT g.*, t.name FROM pg_trigger g JOIN rel t ON t.oid = g.tgrelid
     WHERE g.tgrelid = %(from)s AND NOT g.tgisinternal
), published AS (
    SELECT pubname, format('ALTER PUBLICATION %%I ADD TABLE %%s%%s%%s', pubname, name,
               ' (' || (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                         WHERE attrelid = prrelid AND attnum = ANY (prattrs)) || ')',
               ' WHERE (' || pg_get_expr(prqual, prrelid) || ')') AS said
      FROM live JOIN pg_publication_rel ON prrelid = live.oid JOIN pg_publication p ON p.oid = prpubid
), owned AS (
    SELECT s.name, quote_ident(a.attname) AS attname
      FROM pg_depend d
      JOIN rel s ON s.oid = d.objid AND s.relkind = 'S'
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
       AND d.refobjid = %(from)s AND a.attname = ANY (%(columns)s)
), statistic AS (
    SELECT s.oid, s.stxname, s.stxowner, n.nspname
      FROM pg_statistic_ext s JOIN live ON live.oid = s.stxrelid AND live.relnamespace = s.stxnamespace
      JOIN pg_namespace n ON n.oid = s.stxnamespace
     WHERE NOT EXISTS (SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                        WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = s.oid
                          AND d.refobjid = live.oid AND d.refobjsubid > 0 AND a.attname <> ALL (%(columns)s))
), routine AS (
    SELECT p.oid, CASE WHEN p.proowner = quote_ident(current_user)::regrole THEN '%%s'
                       ELSE format('SET LOCAL ROLE %%s; %%%%s; RESET ROLE', replace(p.proowner::regrole::text, '%%', '%%%%')) END AS as_owner
      FROM pg_proc p
     WHERE EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(from)s)
)
SELECT phase, statement FROM (
    -- LOCK TABLE on a view would lock every table below it; this locks the view alone, and changes nothing.
    SELECT 'view' AS phase, 0 AS step, name AS place,
           format(as_owner, format('ALTER VIEW %%s OWNER TO %%s', name, relowner::regrole)) AS statement
      FROM (SELECT DISTINCT name, relkind, relowner, as_owner FROM rewrite) AS v WHERE relkind = 'v'
    UNION ALL
    SELECT DISTINCT 'lock', CASE WHEN first THEN 1 ELSE 2 END, name, name
      FROM (SELECT conrelid AS oid, true AS first FROM pg_constraint WHERE contype = 'f' AND confrelid = %(from)s
            UNION ALL
            SELECT confrelid, false FROM pg_constraint WHERE contype = 'f' AND conrelid = %(from)s
            UNION ALL
            SELECT rel, false FROM rewrite WHERE relkind = 'r'
            UNION ALL
            SELECT polrelid, false FROM policy) AS touched
      JOIN rel USING (oid)
     WHERE oid <> %(from)s
       AND (pg_has_role(relowner, 'USAGE') OR has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE'))
    UNION ALL
    SELECT 'drop', 0, conname, format('ALTER TABLE %%s DROP CONSTRAINT %%I', child, conname) FROM foreign_key
    UNION ALL
    SELECT 'drop', 1, pubname, format('ALTER PUBLICATION %%I DROP TABLE %%s', pubname, name)
      FROM live JOIN pg_publication_rel ON prrelid = live.oid JOIN pg_publication p ON p.oid = prpubid
    UNION ALL
    -- The table that goes is left bare: no trigger fires on it, and it pins no function.
    SELECT 'drop', 2, tgname, format('DROP TRIGGER %%I ON %%s', tgname, name) FROM trigger
    UNION ALL
    SELECT 'drop', 2, rulename, format('DROP RULE %%I ON %%s', rulename, name) FROM rewrite WHERE rel = %(from)s
    UNION ALL
    SELECT 'drop', 2, polname, format('DROP POLICY %%I ON %%s', polname, name) FROM policy WHERE own
    UNION ALL
    -- It stays shut to others, but its owner must be able to read it.
    SELECT 'drop', 2, name, format('ALTER TABLE %%s NO FORCE ROW LEVEL SECURITY', name)
      FROM live WHERE relforcerowsecurity
    UNION ALL
    -- What somebody has put on the table that comes, or left there.
    SELECT 'drop', 3, tgname, format('DROP TRIGGER %%I ON %%s', tgname, name)
      FROM next JOIN pg_trigger ON tgrelid = next.oid WHERE NOT tgisinternal
    UNION ALL
    SELECT 'drop', 3, rulename, format('DROP RULE %%I ON %%s', rulename, name)
      FROM next JOIN pg_rewrite ON ev_class = next.oid
    UNION ALL
    SELECT 'drop', 3, polname, format('DROP POLICY %%I ON %%s', polname, name)
      FROM next JOIN pg_policy ON polrelid = next.oid
    UNION ALL
    SELECT 'drop', 3, conname, format('ALTER TABLE %%s DROP CONSTRAINT %%I', name, conname)
      FROM next JOIN pg_constraint ON conrelid = next.oid AND contype = 'f'
    UNION ALL
    SELECT 'drop', 3, pubname, format('ALTER PUBLICATION %%I DROP TABLE %%s', pubname, name)
      FROM next JOIN pg_publication_rel ON prrelid = next.oid JOIN pg_publication p ON p.oid = prpubid
    UNION ALL
    SELECT 'drop', 4, name, format('ALTER SEQUENCE %%s OWNED BY NONE', name) FROM owned
    UNION ALL
    SELECT 'out', 0, stxname, format('ALTER STATISTICS %%I.%%I SET SCHEMA %%I', nspname, stxname, %(parked)s::text)
      FROM statistic
    UNION ALL
    SELECT 'in', 0, stxname, format('ALTER STATISTICS %%I.%%I SET SCHEMA %%I', %(schema)s::text, stxname, nspname)
      FROM statistic
    UNION ALL
    SELECT 'make', 0, stxname, format('ALTER STATISTICS %%I.%%I OWNER TO %%s', nspname, stxname, stxowner::regrole)
      FROM statistic WHERE stxowner <> quote_ident(current_user)::regrole
    UNION ALL
    SELECT 'make', 1, owned.name, format('ALTER SEQUENCE %%s OWNED BY %%s.%%s', owned.name, live.name, attname)
      FROM owned, live
    UNION ALL
    SELECT 'make', 2, polname,
           format('CREATE POLICY %%I ON %%s AS %%s FOR %%s TO %%s%%s', polname, name,
                  CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                  CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                              WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, roles, tail)
      FROM policy WHERE own
    UNION ALL
    SELECT 'make', 3, polname, format('COMMENT ON POLICY %%I ON %%s IS %%L', polname, name, obj_description(oid, 'pg_policy'))
      FROM policy WHERE own AND obj_description(oid, 'pg_policy') IS NOT NULL
    UNION ALL
    SELECT 'make', 4, '', format('ALTER TABLE %%s %%s ROW LEVEL SECURITY', name,
                                 CASE WHEN relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END)
      FROM live WHERE relrowsecurity <> coalesce((SELECT relrowsecurity FROM next), false)
    UNION ALL
    SELECT 'make', 4, '', format('ALTER TABLE %%s %%s ROW LEVEL SECURITY', name,
                                 CASE WHEN relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END)
      FROM live WHERE relforcerowsecurity <> coalesce((SELECT relforcerowsecurity FROM next), false)
    UNION ALL
    SELECT 'make', 5, tgname, pg_get_triggerdef(oid) FROM trigger
    UNION ALL
    SELECT 'make', 6, tgname, format('ALTER TABLE %%s %%s TRIGGER %%I', name,
               CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname)
      FROM trigger WHERE tgenabled <> 'O'
    UNION ALL
    SELECT 'make', 6, tgname, format('COMMENT ON TRIGGER %%I ON %%s IS %%L', tgname, name, obj_description(oid, 'pg_trigger'))
      FROM trigger WHERE obj_description(oid, 'pg_trigger') IS NOT NULL
    UNION ALL
    SELECT 'make', 7, name, format(as_owner,
               format('CREATE OR REPLACE VIEW %%s%%s AS %%s', name, ' WITH (' || array_to_string(reloptions, ', ') || ')',
                      rtrim(pg_get_viewdef(rel), E'; \n')))
      FROM rewrite WHERE is_view
    UNION ALL
    SELECT 'make', 8, rulename, format(as_owner,
               'CREATE OR REPLACE ' || substr(rtrim(pg_get_ruledef(oid), E'; \n'), length('CREATE ') + 1))
      FROM rewrite WHERE NOT is_view
    UNION ALL
    SELECT 'make', 9, rulename, format(as_owner, format('ALTER TABLE %%s %%s RULE %%I', name,
               CASE ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, rulename))
      FROM rewrite WHERE NOT is_view AND ev_enabled <> 'O'
    UNION ALL
    SELECT 'make', 9, rulename, format(as_owner, format('COMMENT ON RULE %%I ON %%s IS %%L', rulename, name,
                                                        obj_description(oid, 'pg_rewrite')))
      FROM rewrite WHERE NOT is_view AND obj_description(oid, 'pg_rewrite') IS NOT NULL
    UNION ALL
    SELECT 'make', 10, oid::regprocedure::text, format(as_owner, rtrim(pg_get_functiondef(oid), E'\n')) FROM routine
    UNION ALL
    SELECT 'make', 11, polname, format('ALTER POLICY %%I ON %%s%%s', polname, name, tail) FROM policy WHERE NOT own
    UNION ALL
    SELECT 'make', 12, pubname, said FROM published
    UNION ALL
    SELECT 'make', 13, conname, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s%%s', child, conname, said,
                                       CASE WHEN convalidated THEN ' NOT VALID' ELSE '' END)
      FROM foreign_key
    UNION ALL
    SELECT 'make', 14, conname, format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L', conname, child, comment)
      FROM foreign_key WHERE comment IS NOT NULL
    UNION ALL
    SELECT 'validate', 0, conname, format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I', child, conname)
      FROM foreign_key WHERE convalidated
) AS statements
 ORDER BY step, place, statement
