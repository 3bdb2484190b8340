-- Every object that revisions make beside tables, types and functions: what catalog_snapshot.sql leaves,
-- in the same columns and under the same empty search_path. %(left_out)s as there.
-- An option's value may be a secret: those of user mappings are not read at all.
WITH schema AS (
    SELECT oid, nspname FROM pg_namespace
     WHERE nspname NOT IN ('information_schema', 'migrator')
       AND nspname !~ '^(pg_|migrator_build_)'
),
member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
object AS (
    SELECT 'operator' AS kind, o.oid::regoperator::text AS name, NULL AS part_of,
           'pg_operator'::regclass::oid AS classid, o.oid AS objid, oprowner AS owner,
           jsonb_build_object(
               'function', nullif(oprcode::oid, 0)::regprocedure::text,
               'commutator', nullif(oprcom, 0)::regoperator::text,
               'negator', nullif(oprnegate, 0)::regoperator::text,
               'restrict', nullif(oprrest::text, '-'), 'join', nullif(oprjoin::text, '-'),
               'hashes', oprcanhash, 'merges', oprcanmerge) AS facets
      FROM pg_operator o JOIN schema n ON n.oid = o.oprnamespace
    UNION ALL
    SELECT 'operator class',
           quote_ident(n.nspname) || '.' || quote_ident(opcname) || ' USING ' || amname, NULL,
           'pg_opclass'::regclass, o.oid, opcowner,
           jsonb_build_object('type', format_type(opcintype, NULL), 'default', opcdefault,
                              'family', pg_describe_object('pg_opfamily'::regclass, opcfamily, 0),
                              'storage', format_type(nullif(opckeytype, 0), NULL))
      FROM pg_opclass o JOIN schema n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod
    UNION ALL
    SELECT 'operator family',
           quote_ident(n.nspname) || '.' || quote_ident(opfname) || ' USING ' || amname, NULL,
           'pg_opfamily'::regclass, f.oid, opfowner,
           jsonb_build_object(
               'operators', (SELECT jsonb_agg(amopstrategy || ' ' || amopopr::regoperator
                                              ORDER BY amopstrategy, amopopr::regoperator::text)
                               FROM pg_amop WHERE amopfamily = f.oid),
               'functions', (SELECT jsonb_agg(amprocnum || ' ' || amproc::regprocedure
                                              ORDER BY amprocnum, amproc::regprocedure::text)
                               FROM pg_amproc WHERE amprocfamily = f.oid))
      FROM pg_opfamily f JOIN schema n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
    UNION ALL
    SELECT 'access method', quote_ident(amname), NULL, 'pg_am'::regclass, oid, NULL,
           jsonb_build_object('handler', amhandler::text, 'type', amtype)
      FROM pg_am WHERE oid >= 16384
    UNION ALL
    SELECT 'language', quote_ident(lanname), NULL, 'pg_language'::regclass, oid, lanowner,
           jsonb_build_object('handler', nullif(lanplcallfoid, 0)::regprocedure::text,
                              'inline', nullif(laninline, 0)::regprocedure::text,
                              'validator', nullif(lanvalidator, 0)::regprocedure::text,
                              'trusted', lanpltrusted)
      FROM pg_language WHERE oid >= 16384
    UNION ALL
    SELECT 'cast', format_type(castsource, NULL) || ' AS ' || format_type(casttarget, NULL), NULL,
           'pg_cast'::regclass, oid, NULL,
           jsonb_build_object('function', nullif(castfunc, 0)::regprocedure::text,
                              'context', CASE castcontext WHEN 'e' THEN 'explicit' WHEN 'a'
                                              THEN 'assignment' ELSE 'implicit' END,
                              'method', CASE castmethod WHEN 'i' THEN 'in and out'
                                                        WHEN 'b' THEN 'binary' END)
      FROM pg_cast
     WHERE oid >= 16384
       -- A range type brings one with it.
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass
                                                 AND d.objid = pg_cast.oid AND d.deptype = 'i')
    UNION ALL
    SELECT 'transform', format_type(trftype, NULL) || ' LANGUAGE ' || quote_ident(lanname), NULL,
           'pg_transform'::regclass, t.oid, NULL,
           jsonb_build_object('from', nullif(trffromsql::oid, 0)::regprocedure::text,
                              'to', nullif(trftosql::oid, 0)::regprocedure::text)
      FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
    UNION ALL
    -- collversion follows the server's libraries.
    SELECT 'collation', quote_ident(n.nspname) || '.' || quote_ident(collname), NULL,
           'pg_collation'::regclass, c.oid, collowner,
           to_jsonb(c) - '{oid,collname,collnamespace,collowner,collversion}'::text[]
      FROM pg_collation c JOIN schema n ON n.oid = c.collnamespace
    UNION ALL
    SELECT 'conversion', quote_ident(n.nspname) || '.' || quote_ident(conname), NULL,
           'pg_conversion'::regclass, c.oid, conowner,
           jsonb_build_object('from', pg_encoding_to_char(conforencoding),
                              'to', pg_encoding_to_char(contoencoding),
                              'function', conproc::text, 'default', condefault)
      FROM pg_conversion c JOIN schema n ON n.oid = c.connamespace
    UNION ALL
    SELECT 'text search parser', quote_ident(n.nspname) || '.' || quote_ident(prsname), NULL,
           'pg_ts_parser'::regclass, p.oid, NULL,
           jsonb_build_object('functions', jsonb_build_array(
               prsstart::text, prstoken::text, prsend::text, prsheadline::text, prslextype::text))
      FROM pg_ts_parser p JOIN schema n ON n.oid = p.prsnamespace
    UNION ALL
    SELECT 'text search template', quote_ident(n.nspname) || '.' || quote_ident(tmplname), NULL,
           'pg_ts_template'::regclass, t.oid, NULL,
           jsonb_build_object('functions', jsonb_build_array(tmplinit::text, tmpllexize::text))
      FROM pg_ts_template t JOIN schema n ON n.oid = t.tmplnamespace
    UNION ALL
    SELECT 'text search dictionary', d.oid::regdictionary::text, NULL,
           'pg_ts_dict'::regclass, d.oid, dictowner,
           jsonb_build_object('template', pg_describe_object('pg_ts_template'::regclass,
                                                             dicttemplate, 0),
                              'options', dictinitoption)
      FROM pg_ts_dict d JOIN schema n ON n.oid = d.dictnamespace
    UNION ALL
    SELECT 'text search configuration', c.oid::regconfig::text, NULL,
           'pg_ts_config'::regclass, c.oid, cfgowner,
           jsonb_build_object(
               'parser', pg_describe_object('pg_ts_parser'::regclass, cfgparser, 0),
               'mapping', (SELECT jsonb_object_agg(alias, dicts) FROM (
                   SELECT t.alias, jsonb_agg(m.mapdict::regdictionary::text
                                             ORDER BY m.mapseqno) AS dicts
                     FROM pg_ts_config_map m
                     JOIN ts_token_type(c.cfgparser) t ON t.tokid = m.maptokentype
                    WHERE m.mapcfg = c.oid GROUP BY t.alias) AS mapped))
      FROM pg_ts_config c JOIN schema n ON n.oid = c.cfgnamespace
    UNION ALL
    SELECT 'event trigger', quote_ident(evtname), NULL, 'pg_event_trigger'::regclass, oid, evtowner,
           jsonb_build_object('on', evtevent, 'function', evtfoid::regprocedure::text,
                              'tags', to_jsonb(evttags),
                              'enabled', CASE evtenabled WHEN 'O' THEN 'yes' WHEN 'D' THEN 'no'
                                                         WHEN 'R' THEN 'replica' ELSE 'always' END)
      FROM pg_event_trigger
    UNION ALL
    SELECT 'foreign data wrapper', quote_ident(fdwname), NULL,
           'pg_foreign_data_wrapper'::regclass, oid, fdwowner,
           jsonb_build_object('handler', nullif(fdwhandler, 0)::regprocedure::text,
                              'validator', nullif(fdwvalidator, 0)::regprocedure::text,
                              'options', to_jsonb(fdwoptions))
      FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'foreign server', quote_ident(srvname), quote_ident(fdwname),
           'pg_foreign_server'::regclass, s.oid, srvowner,
           jsonb_build_object('type', srvtype, 'version', srvversion, 'wrapper', quote_ident(fdwname),
                              'options', to_jsonb(srvoptions))
      FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
    UNION ALL
    SELECT 'user mapping',
           CASE umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(usename) END
           || ' SERVER ' || quote_ident(srvname), quote_ident(srvname),
           'pg_user_mapping'::regclass, umid, NULL,
           jsonb_build_object('option names', (SELECT jsonb_agg(split_part(o, '=', 1) ORDER BY o)
                                                 FROM unnest(umoptions) AS o))
      FROM pg_user_mappings
    UNION ALL
    SELECT 'publication', quote_ident(pubname), NULL, 'pg_publication'::regclass, p.oid, pubowner,
           to_jsonb(p) - '{oid,pubname,pubowner}'::text[]
           || jsonb_build_object(
               'schemas', (SELECT jsonb_agg(pnnspid::regnamespace::text ORDER BY 1)
                             FROM pg_publication_namespace WHERE pnpubid = p.oid),
               'tables', (SELECT jsonb_agg(said ORDER BY said) FROM (
                   SELECT prrelid::regclass::text
                          || coalesce(' (' || (SELECT string_agg(quote_ident(attname), ', '
                                                                 ORDER BY attname)
                                                 FROM pg_attribute
                                                WHERE attrelid = prrelid
                                                  AND attnum = ANY (prattrs)) || ')', '')
                          || coalesce(' WHERE ' || pg_get_expr(prqual, prrelid), '') AS said
                     FROM pg_publication_rel
                    WHERE prpubid = p.oid
                      AND prrelid::regclass::text <> ALL (%(left_out)s)) AS published))
      FROM pg_publication p
    UNION ALL
    SELECT 'subscription', quote_ident(subname), NULL, 'pg_subscription'::regclass, oid, subowner,
           '{}'
      FROM pg_subscription
     WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT kind, name, part_of,
       jsonb_strip_nulls(facets || jsonb_build_object(
           'comment', CASE WHEN kind <> 'subscription' THEN obj_description(objid, (
                               SELECT relname FROM pg_class WHERE oid = classid)) END,
           'owner', owner::regrole::text))
  FROM object o
 WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = o.classid AND m.objid = o.objid)
 ORDER BY kind, name
