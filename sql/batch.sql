-- seam_generate_instant_keys(): a row for each element, whatever happens.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

-- Identities that misbehave by themselves.
CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.ids(VARIADIC n int[]) RETURNS uuid[] LANGUAGE sql AS $$ SELECT array_agg(pg_temp.id(i) ORDER BY o) FROM unnest(n) WITH ORDINALITY u(i, o) $$;
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000400", "spec": "status=400"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000404", "spec": "status=404"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000500", "spec": "status=500"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000001", "spec": "delay=300"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000008", "spec": "reset_after"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000009", "spec": "notjson"}'`
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/behave '{"user_identity_id": "00000000-0000-4000-8000-000000000401", "spec": "status=401"}'`

-- in the array's order, NULLs and duplicates included, though the first is the slowest
SELECT ordinality AS n, right(user_identity_id::text, 3) AS id, (instant_key).user_identity_id = user_identity_id AS own, sqlstate,
	split_part(error, E'\n', 1) AS error, seam_request_id IS NOT NULL AS request
FROM seam_generate_instant_keys(pg_temp.ids(1, 2, 400, 3, 2, 404, 500) || NULL::uuid || pg_temp.ids(8, 9, 3), 2);
-- its detail is in the row, too
SELECT regexp_replace(error, 'id: .*', 'id: ...') AS error FROM seam_generate_instant_keys(pg_temp.ids(400));
-- count and profile of all
SELECT (instant_key).customization_profile_id FROM seam_generate_instant_keys(pg_temp.ids(2, 3), 5, '0a1b2c3d-0000-4000-8000-00000000000f');
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT DISTINCT (r ->> 'body')::jsonb - 'user_identity_id' AS body FROM jsonb_array_elements(:'requests') r WHERE r ->> 'body' LIKE '%profile%';

-- empty, NULL elements only, more than one dimension, NULL
SELECT count(*) FROM seam_generate_instant_keys('{}');
SELECT ordinality, sqlstate FROM seam_generate_instant_keys('{NULL,NULL}');
SELECT ordinality, sqlstate FROM seam_generate_instant_keys(ARRAY[pg_temp.ids(2, 3), pg_temp.ids(400, 5)]) ORDER BY 1;
SELECT code, message FROM pg_temp.try('SELECT * FROM seam_generate_instant_keys(NULL)');

-- what concerns all is an error before the first request
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT pg_temp.state('SELECT * FROM seam_generate_instant_keys(pg_temp.ids(2, 3), 0)');
SET seam_ik.api_key = '';
SELECT pg_temp.state('SELECT * FROM seam_generate_instant_keys(pg_temp.ids(2, 3))');
SET seam_ik.api_key_file = '/nonexistent';
SELECT pg_temp.state('SELECT * FROM seam_generate_instant_keys(pg_temp.ids(2, 3))');
SET seam_ik.api_key_file = '/tmp';
SELECT pg_temp.state('SELECT * FROM seam_generate_instant_keys(pg_temp.ids(2, 3))');
SET seam_ik.api_key = 'seam_cst_x';
SELECT pg_temp.state('SELECT * FROM seam_generate_instant_keys(pg_temp.ids(2, 3))');
SET seam_ik.api_key = 'seam_test_key';
\set after `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT jsonb_array_length(:'after') - jsonb_array_length(:'requests') AS "requests made";

-- after a 401 nothing more is sent
SET seam_ik.max_concurrency = 1;
SELECT ordinality, sqlstate, split_part(error, E'\n', 1) AS error FROM seam_generate_instant_keys(pg_temp.ids(2, 401, 3, 4) || NULL::uuid || pg_temp.ids(5));
\set after2 `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT jsonb_array_length(:'after2') - jsonb_array_length(:'after') AS "requests made";
RESET seam_ik.max_concurrency;

-- no more at once than max_concurrency, and as many: connections of HTTP/1.1 tell
\c
\i :setup
CREATE FUNCTION pg_temp.id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
SET seam_ik.max_concurrency = 7;
SELECT pg_temp.fake('delay=20') \gset
SELECT count(instant_key), count(DISTINCT (instant_key).instant_key_id), bool_and((instant_key).user_identity_id = user_identity_id) AS own, bool_and(ordinality = n) AS ordered
FROM (SELECT *, row_number() OVER () AS n FROM seam_generate_instant_keys(ARRAY(SELECT pg_temp.id(i) FROM generate_series(1, 100) i))) s;
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT count(DISTINCT r ->> 'connection') AS connections FROM jsonb_array_elements(:'requests') r;

-- 429 slows all down: Retry-After is waited for once, and every key comes
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
SELECT pg_temp.fake('status=429,retry_after=1,times=5') \gset
SELECT count(instant_key) FROM seam_generate_instant_keys(ARRAY(SELECT pg_temp.id(i) FROM generate_series(1, 30) i));
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT count(*) AS requests, max(gap) > 0.9 AS "all paused"
FROM (SELECT (r ->> 'time')::float8 - lag((r ->> 'time')::float8) OVER (ORDER BY r ->> 'time') AS gap FROM jsonb_array_elements(:'requests') r) s;
-- request_timeout bounds an element, the pause included
SET seam_ik.request_timeout = '5s';
SELECT pg_temp.fake('status=429,retry_after=9,times=100') \gset
SELECT DISTINCT sqlstate FROM seam_generate_instant_keys(ARRAY(SELECT pg_temp.id(i) FROM generate_series(1, 5) i));
RESET seam_ik.request_timeout;
