-- The life of a key: get, list, delete.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

SELECT instant_key_id AS id, instant_key_url AS url FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') \gset
SELECT count(*) FROM seam_generate_instant_keys(ARRAY['d92e0c7b-72a1-4063-9ee8-2acefc240358', 'd92e0c7b-72a1-4063-9ee8-2acefc240359']::uuid[]);

-- get: by id, by URL, by a literal without a cast
SELECT instant_key_id = :'id' AS id, instant_key_url = :'url' AS url FROM seam_get_instant_key(:'id'::uuid);
SELECT instant_key_id = :'id' AS id FROM seam_get_instant_key(:'url'::text);
SELECT instant_key_id = :'id' AS id FROM seam_get_instant_key(:'id');
SELECT instant_key_id = :'id' AS id FROM seam_get_instant_key(upper(:'id'));
SELECT seam_get_instant_key(NULL::uuid) IS NULL AS "null", seam_get_instant_key(NULL::text) IS NULL AS "null";
SELECT pg_temp.state('SELECT seam_get_instant_key(gen_random_uuid())'), pg_temp.state('SELECT seam_get_instant_key(''https://ik.seam.co/UNKNOWN'')');
SELECT pg_temp.state($$SELECT seam_get_instant_key(E'https://ik.seam.co/"\\\n\u00e9')$$);
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT (r ->> 'body')::jsonb ->> 'instant_key_url' AS "asked for" FROM jsonb_array_elements(:'requests') r ORDER BY r -> 'n' DESC LIMIT 1;
-- what the URL opens is in no message
SELECT pg_temp.fake('status=404,message=' || pg_temp.enc('no key ' || :'url')) \gset
SELECT detail FROM pg_temp.try(format('SELECT seam_get_instant_key(%L)', :'url'));
-- another key than the one asked for
SELECT pg_temp.fake('set=instant_key_id:"00000000-0000-4000-8000-000000000000"') \gset
SELECT pg_temp.state(format('SELECT seam_get_instant_key(%L::uuid)', :'id'));
SELECT pg_temp.fake() \gset

-- list: of an identity, of all
SELECT count(*), count(DISTINCT instant_key_id), count(DISTINCT user_identity_id) FROM seam_list_instant_keys('d92e0c7b-72a1-4063-9ee8-2acefc240358');
SELECT count(*), count(DISTINCT user_identity_id) FROM seam_list_instant_keys();
SELECT count(*) FROM seam_list_instant_keys(gen_random_uuid());
SELECT spec, pg_temp.call(spec, 'SELECT * FROM seam_list_instant_keys()') FROM (VALUES
	('missing=instant_keys'), ('top=instant_keys:null'), ('top=instant_keys:[1]'), ('top=instant_keys:[null]'), ('okfalse'), ('notjson'), ('status=404'), ('status=401')) v(spec);
-- a list has a limit of its own
SELECT pg_temp.fake() \gset
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/seed-keys '{"user_identity_id": "d92e0c7b-72a1-4063-9ee8-2acefc240360", "count": 5000}'`
SELECT count(*) FROM seam_list_instant_keys('d92e0c7b-72a1-4063-9ee8-2acefc240360');
SET seam_ik.max_list_size = '1MB';
SELECT code, message, hint FROM pg_temp.try('SELECT * FROM seam_list_instant_keys(''d92e0c7b-72a1-4063-9ee8-2acefc240360'')');
RESET seam_ik.max_list_size;

-- delete: now, and not again
SELECT seam_delete_instant_key(:'id'), seam_delete_instant_key(:'id'), seam_delete_instant_key(NULL);
SELECT pg_temp.state(format('SELECT seam_get_instant_key(%L::uuid)', :'id'));
SELECT count(*) FROM seam_list_instant_keys('d92e0c7b-72a1-4063-9ee8-2acefc240358');
-- a 404 that is not Seam's says nothing of the key
SELECT instant_key_id AS id FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') \gset
SELECT pg_temp.fake('status=404,html') \gset
SELECT code FROM pg_temp.try(format('SELECT seam_delete_instant_key(%L)', :'id'));
-- a lost answer: the retry finds it gone, and that is success
SELECT pg_temp.fake('reset_after,times=1') \gset
SELECT seam_delete_instant_key(:'id');

-- what may be retried is: a lost answer, 5xx, 408, 429
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
SELECT pg_temp.fake() \gset
SELECT instant_key_id AS id FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') \gset
\set get 'SELECT seam_get_instant_key(''' :id '''::uuid)'
SELECT spec, pg_temp.call(spec, :'get') FROM (VALUES ('reset,times=2'), ('close,times=2'), ('status=503,times=2'), ('status=408,times=2'), ('status=429,times=2'), ('truncate=5,times=2'),
	('status=500'), ('status=400'), ('status=403'), ('notjson')) v(spec);
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT r ->> 'spec' AS spec, count(*) AS requests FROM jsonb_array_elements(:'requests') r WHERE r ->> 'spec' <> '' GROUP BY 1 ORDER BY min((r ->> 'n')::int);

-- in a WHERE clause Seam is asked last, so no key dies of a row that does not qualify
\set reset 'python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset {}'
\set ask_keys 'python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys'
\set ignored `:reset`
SELECT pg_temp.fake() \gset
CREATE TEMP TABLE stay AS
	SELECT day, gen_random_uuid() AS guest, now() + day * interval '1 day' AS checkout, NULL::uuid AS key_id FROM unnest('{-1, 1, 2}'::int[]) day;
UPDATE stay SET key_id = (seam_generate_instant_key(guest)).instant_key_id;
SELECT day FROM stay WHERE seam_delete_instant_key(key_id) AND checkout < now();
\set keys `:ask_keys`
SELECT * FROM pg_temp.keys(:'keys');
SELECT day FROM stay WHERE (seam_generate_instant_key(guest)).instant_key_id IS NOT NULL AND checkout < now();
SELECT day FROM stay WHERE (seam_generate_instant_key(guest, 1, NULL)).instant_key_id IS NOT NULL AND checkout < now();
\set keys `:ask_keys`
SELECT * FROM pg_temp.keys(:'keys');
-- all those that ask it
SELECT p.oid::regprocedure AS "asks Seam" FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE e.extname = 'seam_ik' AND p.procost > 10000 ORDER BY p.proname, p.pronargs, 1;
-- what asks oftener than it looks: (f(x)).* once for each column, a cursor for each row that it comes to
\set ignored `:reset`
SELECT count(*) FROM (SELECT (seam_generate_instant_key(guest)).* FROM stay LIMIT 1 OFFSET 0) s;
\set keys `:ask_keys`
SELECT issued FROM pg_temp.keys(:'keys');
\set ignored `:reset`
SELECT count(*) FROM stay, seam_generate_instant_key(guest) WHERE day < 0;
\set keys `:ask_keys`
SELECT issued FROM pg_temp.keys(:'keys');
\set ignored `:reset`
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT day, (seam_generate_instant_key(guest)).instant_key_id IS NOT NULL AS issued FROM stay;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
COMMIT;
\set keys `:ask_keys`
SELECT issued FROM pg_temp.keys(:'keys');
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT day, (seam_generate_instant_key(guest)).instant_key_id IS NOT NULL AS issued FROM stay;
FETCH 2 FROM c;
COMMIT;
\set keys `:ask_keys`
SELECT issued FROM pg_temp.keys(:'keys');
CLOSE c;

-- privileges
CREATE ROLE regress_seam_clerk;
SET ROLE regress_seam_clerk;
SELECT seam_get_instant_key(gen_random_uuid());
SELECT seam_get_instant_key('x'::text);
SELECT * FROM seam_list_instant_keys();
SELECT seam_delete_instant_key(gen_random_uuid());
SELECT * FROM seam_generate_instant_keys('{}');
RESET ROLE;
DROP ROLE regress_seam_clerk;
