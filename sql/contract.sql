-- The contract of the extension's objects, and the row of a key.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

-- the type
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'seam_instant_key'::regclass AND attnum > 0 ORDER BY attnum;

-- the functions: signature, result, volatility, parallel safety, who may execute
SELECT p.oid::regprocedure AS function, pg_get_function_arguments(p.oid) AS arguments,
	pg_get_function_result(p.oid) AS result, provolatile AS v, proparallel AS p, proisstrict AS strict,
	NOT EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) AND proacl IS NOT NULL AS "not public"
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'seam_ik'
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- every object has a comment
SELECT pg_describe_object(classid, objid, objsubid) AS "without comment"
FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'seam_ik' AND deptype = 'e'
	AND obj_description(objid, classid::regclass::name) IS NULL
	AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid = objid AND obj_description(t.typrelid, 'pg_class') IS NOT NULL)
	-- array types come with their element's
	AND NOT EXISTS (SELECT FROM pg_type t WHERE t.typarray = objid);

-- the row
\x on
SELECT instant_key_id IS NOT NULL AS id, instant_key_url ~ '^https://ik\.seam\.co/' AS url, user_identity_id,
	client_session_id IS NOT NULL AS session, workspace_id, customization_profile_id, customization,
	created_at BETWEEN now() - interval '1 min' AND now() + interval '1 min' AS created,
	expires_at - created_at AS life
FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358', 10);
SELECT user_identity_id, customization_profile_id, customization
FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358', 2, '0a1b2c3d-0000-4000-8000-00000000000f');
\x off

-- what was asked: a NULL count or profile is left out; literals are not ambiguous
SELECT (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358')).workspace_id;
SELECT (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358', NULL)).workspace_id;
SELECT (seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358', NULL, NULL)).workspace_id;
SELECT (seam_generate_instant_key('D92E0C7B-72A1-4063-9EE8-2ACEFC240358', max_use_count => 2147483647)).workspace_id;
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT r ->> 'method' AS method, r ->> 'path' AS path, r ->> 'body' AS body FROM jsonb_array_elements(:'requests') r;
SELECT DISTINCT h ->> 0 AS header, replace(h ->> 1, (SELECT extversion FROM pg_extension WHERE extname = 'seam_ik'), 'VERSION') AS value
FROM jsonb_array_elements(:'requests') r, jsonb_array_elements(r -> 'headers') h
WHERE h ->> 0 NOT IN ('Host', 'Content-Length') ORDER BY 1;
SELECT count(DISTINCT r ->> 'connection') AS connections FROM jsonb_array_elements(:'requests') r;

-- arguments that make no request
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(NULL)');
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(NULL, NULL, NULL)');
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'', 0)');
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'', -1, NULL)');
SELECT code, message FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'', 1, NULL, ''4d1c24b2-781e-4d1a-8d77-15249ad57c8a'')');
\set after `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT jsonb_array_length(:'after') - jsonb_array_length(:'requests') AS "requests made";

-- a call for each row
SELECT count(DISTINCT (k).instant_key_id) FROM (SELECT seam_generate_instant_key(gen_random_uuid()) k FROM generate_series(1, 5) OFFSET 0) s;

-- a type that somebody changed is refused before the call
BEGIN;
ALTER TYPE seam_instant_key ADD ATTRIBUTE more int;
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
ROLLBACK;

-- privileges: EXECUTE is all it takes
CREATE ROLE regress_seam_clerk;
SET ROLE regress_seam_clerk;
SELECT seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
RESET ROLE;
GRANT EXECUTE ON FUNCTION seam_generate_instant_key(uuid, int) TO regress_seam_clerk;
SET ROLE regress_seam_clerk;
SELECT user_identity_id FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
RESET ROLE;
DROP OWNED BY regress_seam_clerk;
DROP ROLE regress_seam_clerk;

-- another schema, where it stays; and gone without a trace
DROP EXTENSION seam_ik;
CREATE SCHEMA "Locks";
CREATE EXTENSION seam_ik SCHEMA "Locks";
SELECT pg_temp.state('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT user_identity_id FROM "Locks".seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
SELECT count(*) FROM "Locks".seam_generate_instant_keys(ARRAY['d92e0c7b-72a1-4063-9ee8-2acefc240358']::uuid[]);
ALTER EXTENSION seam_ik SET SCHEMA public;
DROP EXTENSION seam_ik;
DROP SCHEMA "Locks";
CREATE EXTENSION seam_ik;
