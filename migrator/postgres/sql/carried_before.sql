-- The statements that make the table (oid %(to)s, or null where it is not made yet) of schema
-- %(schema)s what its live table of the same name (oid %(from)s) is, beyond what its definition gives: only what still
-- differs, so that a second run has nothing to do. Run with an empty search_path.
-- %(columns)s are the columns of both; %(made)s the indexes and constraints that the live one's
-- definition gave it: what is beside them was added by hand.
WITH live AS (
    SELECT c.*, format('%%I.%%I', n.nspname, c.relname) AS name, n.nspname
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(from)s
), target AS (SELECT format('%%I.%%I', %(schema)s::text, relname) FROM live
), next AS (SELECT * FROM pg_class WHERE oid = %(to)s),
option AS (
    SELECT v.of_live, v.prefix || split_part(o, '=', 1) AS name, substr(o, strpos(o, '=') + 1) AS value,
           to_char(place, 'FM000') AS place
      FROM (SELECT true AS of_live, '' AS prefix, reloptions AS options FROM live
            UNION ALL SELECT false, '', reloptions FROM next
            UNION ALL SELECT true, 'toast.', t.reloptions FROM live JOIN pg_class t ON t.oid = live.reltoastrelid
            UNION ALL SELECT false, 'toast.', t.reloptions FROM next JOIN pg_class t ON t.oid = next.reltoastrelid
           ) AS v, unnest(v.options) WITH ORDINALITY AS u (o, place)
), attribute AS (
    SELECT a.*, b.attname IS NOT NULL AS there, b.attnum AS to_attnum, b.attstorage AS to_storage,
           b.attcompression AS to_compression, b.attoptions AS to_options,
           coalesce(b.attstattarget, -1) AS to_target, b.atttypid AS to_type,
           pg_get_expr(d.adbin, d.adrelid) AS said, pg_get_expr(e.adbin, e.adrelid) AS to_said
      FROM pg_attribute a
      LEFT JOIN pg_attribute b ON b.attrelid = %(to)s AND b.attname = a.attname AND NOT b.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      LEFT JOIN pg_attrdef e ON e.adrelid = b.attrelid AND e.adnum = b.attnum
     WHERE a.attrelid = %(from)s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
       AND a.attname = ANY (%(columns)s)
), held AS (  -- every index and index-backed constraint, by the name they share
    SELECT i.*, x.relname, x.reloptions, x.reltablespace, k.oid AS constraint_oid, k.conname, k.contype,
           k.condeferrable, k.condeferred, coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) AS period,
           pg_get_indexdef(i.indexrelid) AS said,
           y.oid AS to_oid, y.reloptions AS to_options, y.reltablespace AS to_tablespace, j.indisclustered AS to_clustered,
           j.indisreplident AS to_identity, m.oid AS to_constraint
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
      LEFT JOIN (pg_index j JOIN pg_class y ON y.oid = j.indexrelid)
             ON j.indrelid = %(to)s AND y.relname = x.relname
      LEFT JOIN pg_constraint m ON m.conrelid = %(to)s AND m.conname = k.conname
     WHERE i.indrelid = %(from)s
), lacking AS (  -- made by hand, or there already
    SELECT h.*, to_oid IS NULL AND relname <> ALL (%(made)s) AS to_make FROM held h
     WHERE to_oid IS NOT NULL
        OR relname <> ALL (%(made)s) AND NOT EXISTS (
               SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(from)s AND d.refobjsubid > 0
                  AND (d.classid = 'pg_class'::regclass AND d.objid = h.indexrelid
                       OR d.classid = 'pg_constraint'::regclass AND d.objid = h.constraint_oid)
                  AND a.attname <> ALL (%(columns)s))
), checked AS (
    SELECT k.oid, k.conname, pg_get_constraintdef(k.oid) AS said FROM pg_constraint k
     WHERE k.conrelid = %(from)s AND k.contype = 'c' AND k.conname <> ALL (%(made)s)
       AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = %(to)s AND conname = k.conname)
       AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = %(from)s AND attnum = ANY (k.conkey)
                                                  AND attname <> ALL (%(columns)s))
), statistic AS (
    SELECT s.oid, s.stxname, s.stxstattarget, s.stxowner, t.oid AS to_oid, t.stxstattarget AS to_target,
           left(substr(said, length(format('CREATE STATISTICS %%I.%%I ', live.nspname, s.stxname)) + 1),
                -length(' FROM ' || live.name)) AS said,
           left(substr(to_said, length(format('CREATE STATISTICS %%I.%%I ', %(schema)s::text, s.stxname)) + 1),
                -length(' FROM ' || (TABLE target))) AS to_said
      FROM live
      JOIN pg_statistic_ext s ON s.stxrelid = live.oid AND s.stxnamespace = live.relnamespace
      CROSS JOIN LATERAL pg_get_statisticsobjdef(s.oid) AS said
      LEFT JOIN pg_statistic_ext t ON t.stxrelid = %(to)s AND t.stxname = s.stxname
      LEFT JOIN LATERAL pg_get_statisticsobjdef(t.oid) AS to_said ON true
     WHERE NOT EXISTS (SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                        WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = s.oid
                          AND d.refobjid = live.oid AND d.refobjsubid > 0 AND a.attname <> ALL (%(columns)s))
)
SELECT statement FROM (
    SELECT 0 AS step, '' AS place, format('ALTER TABLE %%s SET ACCESS METHOD %%I', (TABLE target), amname) AS statement
      FROM live JOIN pg_am m ON m.oid = live.relam
     WHERE live.relam <> coalesce((SELECT relam FROM next), (SELECT oid FROM pg_am WHERE amname = 'heap'))
    UNION ALL
    SELECT 1, '', format('ALTER TABLE %%s SET TABLESPACE %%I', (TABLE target), spcname)
      FROM live JOIN pg_tablespace t ON t.oid = coalesce(nullif(live.reltablespace, 0),
           (SELECT dattablespace FROM pg_database WHERE datname = current_database()))
     WHERE live.reltablespace <> coalesce((SELECT reltablespace FROM next), 0)
    UNION ALL
    SELECT 2, place, format('ALTER TABLE %%s SET (%%s = %%L)', (TABLE target), name, value) FROM option o
     WHERE of_live AND NOT EXISTS (SELECT FROM option p WHERE NOT p.of_live AND p.name = o.name AND p.value = o.value)
    UNION ALL
    SELECT 2, name, format('ALTER TABLE %%s RESET (%%s)', (TABLE target), name) FROM option o
     WHERE NOT of_live AND NOT EXISTS (SELECT FROM option p WHERE p.of_live AND p.name = o.name)
    UNION ALL
    SELECT 3, attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET STATISTICS %%s', (TABLE target), attname,
                              coalesce(attstattarget, -1))
      FROM attribute WHERE coalesce(attstattarget, -1) <> to_target
    UNION ALL
    SELECT 3, attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET (%%s)', (TABLE target), attname,
                              array_to_string(attoptions, ', '))
      FROM attribute WHERE NOT coalesce(to_options, '{}') @> attoptions
    UNION ALL
    SELECT 3, attname, format('ALTER TABLE %%s ALTER COLUMN %%I RESET (%%s)', (TABLE target), attname,
                              split_part(o, '=', 1))
      FROM attribute, unnest(to_options) AS o
     WHERE split_part(o, '=', 1) <> ALL (SELECT split_part(p, '=', 1) FROM unnest(attoptions) AS p)
    UNION ALL
    SELECT 3, attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET STORAGE %%s', (TABLE target), attname,
               CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'e' THEN 'EXTERNAL' ELSE 'EXTENDED' END)
      FROM attribute JOIN pg_type y ON y.oid = atttypid
     WHERE attstorage <> CASE WHEN there THEN to_storage ELSE typstorage END
       AND (NOT there OR to_type = atttypid)
    UNION ALL
    SELECT 3, attname, format('ALTER TABLE %%s ALTER COLUMN %%I SET COMPRESSION %%s', (TABLE target), attname,
               CASE attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END)
      FROM attribute WHERE attcompression <> coalesce(to_compression, '') AND (NOT there OR to_type = atttypid)
    UNION ALL
    SELECT 3, attname, CASE WHEN said IS NULL
               THEN format('ALTER TABLE %%s ALTER COLUMN %%I DROP DEFAULT', (TABLE target), attname)
               ELSE format('ALTER TABLE %%s ALTER COLUMN %%I SET DEFAULT %%s', (TABLE target), attname, said) END
      FROM attribute WHERE said IS DISTINCT FROM to_said
    UNION ALL
    SELECT 4, attname, format('COMMENT ON COLUMN %%s.%%I IS %%L', (TABLE target), attname,
                              col_description(%(from)s, attnum))
      FROM attribute
     WHERE there AND col_description(%(from)s, attnum) IS NOT NULL AND col_description(%(to)s, to_attnum) IS NULL
    UNION ALL
    SELECT 5, lacking.relname, CASE WHEN contype = 'x' OR period
               THEN format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', (TABLE target), conname,
                           pg_get_constraintdef(constraint_oid))
               ELSE format('CREATE %%sINDEX %%I ON %%s USING %%s', unique_, lacking.relname, (TABLE target),
                           substr(said, length(format('CREATE %%sINDEX %%I ON %%s USING ', unique_, lacking.relname, live.name)) + 1))
               END
      FROM live, lacking CROSS JOIN LATERAL (SELECT CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END AS unique_) AS u
     WHERE to_make
    UNION ALL
    SELECT 6, relname, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s USING INDEX %%I%%s%%s', (TABLE target), conname,
               CASE contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, relname,
               CASE WHEN condeferrable THEN ' DEFERRABLE' ELSE '' END,
               CASE WHEN condeferred THEN ' INITIALLY DEFERRED' ELSE '' END)
      FROM lacking WHERE to_make AND contype IN ('p', 'u') AND NOT period
    UNION ALL
    SELECT 7, conname, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', (TABLE target), conname, said) FROM checked
    UNION ALL
    -- From 18 on a NOT NULL has a name.
    SELECT 7, k.conname, format('ALTER TABLE %%s RENAME CONSTRAINT %%I TO %%I', (TABLE target), m.conname, k.conname)
      FROM pg_constraint k
      JOIN attribute a ON k.conkey = ARRAY[a.attnum]
      JOIN pg_constraint m ON m.conrelid = %(to)s AND m.contype = 'n' AND m.conkey = ARRAY[a.to_attnum]
     WHERE k.conrelid = %(from)s AND k.contype = 'n' AND k.conname <> m.conname
    UNION ALL
    SELECT 8, relname, format('ALTER INDEX %%I.%%I SET (%%s)', %(schema)s::text, relname, array_to_string(reloptions, ', '))
      FROM lacking
     WHERE reloptions IS NOT NULL AND NOT (to_make AND contype IS DISTINCT FROM 'x' AND NOT period)
       AND (to_options IS NULL OR NOT to_options @> reloptions)
    UNION ALL
    SELECT 8, relname, format('ALTER INDEX %%I.%%I RESET (%%s)', %(schema)s::text, relname, split_part(o, '=', 1))
      FROM lacking, unnest(to_options) AS o
     WHERE split_part(o, '=', 1) <> ALL (SELECT split_part(p, '=', 1) FROM unnest(reloptions) AS p)
    UNION ALL
    SELECT 8, relname, format('ALTER INDEX %%I.%%I SET TABLESPACE %%I', %(schema)s::text, relname, spcname)
      FROM lacking JOIN pg_tablespace t ON t.oid = coalesce(nullif(reltablespace, 0),
           (SELECT dattablespace FROM pg_database WHERE datname = current_database()))
     WHERE reltablespace <> coalesce(to_tablespace, 0)
    UNION ALL
    SELECT 8, relname, format('ALTER INDEX %%I.%%I ALTER COLUMN %%s SET STATISTICS %%s', %(schema)s::text, relname,
                              a.attnum, coalesce(a.attstattarget, -1))
      FROM lacking
      JOIN pg_attribute a ON a.attrelid = indexrelid
      LEFT JOIN pg_attribute b ON b.attrelid = to_oid AND b.attnum = a.attnum
     WHERE coalesce(a.attstattarget, -1) <> coalesce(b.attstattarget, -1)
       AND (SELECT indkey[a.attnum - 1] FROM pg_index i WHERE i.indexrelid = lacking.indexrelid) = 0
    UNION ALL
    SELECT 9, relname, format('COMMENT ON INDEX %%I.%%I IS %%L', %(schema)s::text, relname,
                              obj_description(indexrelid, 'pg_class'))
      FROM lacking
     WHERE obj_description(indexrelid, 'pg_class') IS NOT NULL AND obj_description(to_oid, 'pg_class') IS NULL
    UNION ALL
    SELECT 9, k.conname, format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L', k.conname, (TABLE target),
                              obj_description(k.oid, 'pg_constraint'))
      FROM pg_constraint k LEFT JOIN pg_constraint m ON m.conrelid = %(to)s AND m.conname = k.conname
     WHERE k.conrelid = %(from)s AND k.contype <> 'f' AND obj_description(k.oid, 'pg_constraint') IS NOT NULL
       AND obj_description(m.oid, 'pg_constraint') IS NULL
       AND (m.oid IS NOT NULL OR k.oid IN (SELECT oid FROM checked)
            OR k.oid IN (SELECT constraint_oid FROM lacking WHERE to_make)
            -- A NOT NULL that step 7 gives its name.
            OR k.contype = 'n' AND EXISTS (SELECT FROM attribute a WHERE k.conkey = ARRAY[a.attnum]))
    UNION ALL
    SELECT 10, '', format('ALTER TABLE %%s CLUSTER ON %%I', (TABLE target), relname)
      FROM lacking WHERE indisclustered AND to_clustered IS NOT TRUE
    UNION ALL
    SELECT 10, '', format('ALTER TABLE %%s SET WITHOUT CLUSTER', (TABLE target))
      WHERE EXISTS (SELECT FROM pg_index WHERE indrelid = %(to)s AND indisclustered)
        AND NOT EXISTS (SELECT FROM held WHERE indisclustered)
    UNION ALL
    SELECT 10, '', format('ALTER TABLE %%s REPLICA IDENTITY %%s', (TABLE target),
               CASE relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END)
      FROM live WHERE relreplident <> 'i' AND relreplident <> coalesce((SELECT relreplident FROM next), 'd')
    UNION ALL
    SELECT 10, '', format('ALTER TABLE %%s REPLICA IDENTITY USING INDEX %%I', (TABLE target), lacking.relname)
      FROM live, lacking WHERE relreplident = 'i' AND indisreplident AND to_identity IS NOT TRUE
    UNION ALL
    SELECT 11, stxname, format('DROP STATISTICS %%I.%%I', %(schema)s::text, stxname) FROM pg_statistic_ext t
     WHERE stxrelid = %(to)s
       AND NOT EXISTS (SELECT FROM statistic s WHERE s.stxname = t.stxname AND s.said = s.to_said)
    UNION ALL
    SELECT 12, stxname, format('CREATE STATISTICS %%I.%%I %%s FROM %%s', %(schema)s::text, stxname, said, (TABLE target))
      FROM statistic WHERE said IS DISTINCT FROM to_said
    UNION ALL
    SELECT 13, stxname, format('ALTER STATISTICS %%I.%%I SET STATISTICS %%s', %(schema)s::text, stxname,
                               coalesce(stxstattarget, -1))
      FROM statistic
     WHERE coalesce(stxstattarget, -1) <> CASE WHEN said = to_said THEN coalesce(to_target, -1) ELSE -1 END
    UNION ALL
    SELECT 13, stxname, format('COMMENT ON STATISTICS %%I.%%I IS %%L', %(schema)s::text, stxname,
                               obj_description(oid, 'pg_statistic_ext'))
      FROM statistic
     WHERE obj_description(oid, 'pg_statistic_ext')
           IS DISTINCT FROM CASE WHEN said = to_said THEN obj_description(to_oid, 'pg_statistic_ext') END
) AS statements ORDER BY step, place
