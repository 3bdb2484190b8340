-- Tables that revisions do not speak of: migrator's own, every build of a projection and its live
-- table, partitions (their parent stands for them), and what extensions brought.
SELECT n.nspname::text, c.relname::text
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f')
  AND (n.nspname = 'migrator' OR n.nspname ~ '^migrator_build_[0-9]+$' OR c.relispartition
       OR EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'));
