-- What the extension has made in this database, a line each: two databases whose lines are
-- the same have the same extension.  The order of a table's columns is left out, because
-- what an update adds comes last.
SELECT regexp_replace(line, '\s+', ' ', 'g') FROM (
WITH member AS (
	SELECT d.classid, d.objid
	FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'seam_ik' AND d.deptype = 'e'
), relation AS (
	SELECT c.* FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
), privilege AS (
	SELECT classoid, objoid, objsubid, array_agg(a::text ORDER BY a::text) AS of
	FROM pg_init_privs, unnest(initprivs) a GROUP BY 1, 2, 3
)
SELECT 'extension ' || extversion || ' ' || extnamespace::regnamespace FROM pg_extension WHERE extname = 'seam_ik'
UNION ALL
SELECT concat_ws(' ', 'object', pg_describe_object(m.classid, m.objid, 0), '|', obj_description(m.objid, c.relname),
	'|', p.of::text)
FROM member m JOIN pg_class c ON c.oid = m.classid
	LEFT JOIN privilege p ON p.classoid = m.classid AND p.objoid = m.objid AND p.objsubid = 0
UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(f.oid), f.proowner::regrole,
	ARRAY(SELECT a::text FROM unnest(coalesce(f.proacl, acldefault('f', f.proowner))) a ORDER BY 1)::text)
FROM member m JOIN pg_proc f ON m.classid = 'pg_proc'::regclass AND m.objid = f.oid
UNION ALL
SELECT concat_ws(' ', 'relation', r.relname, r.relkind, r.relpersistence, r.relrowsecurity, r.relreplident,
	r.relowner::regrole, ARRAY(SELECT o FROM unnest(r.reloptions) o ORDER BY 1)::text,
	ARRAY(SELECT a::text FROM unnest(coalesce(r.relacl,
		acldefault(CASE r.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, r.relowner))) a ORDER BY 1)::text)
FROM relation r
UNION ALL
SELECT concat_ws(' ', 'column', r.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
	a.attgenerated, a.attcollation::regcollation, a.attstorage, a.attcompression, a.attacl::text,
	pg_get_expr(d.adbin, d.adrelid), '|', col_description(r.oid, a.attnum))
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT concat_ws(' ', 'column of type', t.typname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod))
FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid AND t.typtype = 'c'
	JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
	JOIN pg_attribute a ON a.attrelid = t.typrelid AND NOT a.attisdropped
UNION ALL
SELECT concat_ws(' ', 'constraint', r.relname, c.conname, c.contype, c.convalidated, pg_get_constraintdef(c.oid))
FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
UNION ALL
SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident,
	obj_description(i.indexrelid, 'pg_class'))
FROM relation r JOIN pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid
UNION ALL
SELECT concat_ws(' ', 'policy or rule', pg_get_ruledef(w.oid)) FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid
UNION ALL
SELECT concat_ws(' ', 'sequence', r.relname, s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqincrement, s.seqcycle, s.seqcache)
FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT concat_ws(' ', 'dumped', c.oid::regclass, e.extcondition[c.n])
FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY c(oid, n) WHERE e.extname = 'seam_ik'
) made(line)
ORDER BY 1;
