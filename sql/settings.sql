-- The settings: who may set them, what is refused, and that no value shows.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

SELECT name, unit, vartype, context, min_val, max_val, boot_val FROM pg_settings WHERE name LIKE 'seam\_ik.%' ORDER BY name;

-- units and limits
SET seam_ik.request_timeout = '1h';
SHOW seam_ik.request_timeout;
SELECT pg_temp.state($$SET seam_ik.request_timeout = '61min'$$);
SELECT pg_temp.state($$SET seam_ik.connect_timeout = 0$$);
SET seam_ik.connect_timeout = 1;
SHOW seam_ik.connect_timeout;
SELECT pg_temp.state($$SET seam_ik.max_retries = 11$$);
SELECT pg_temp.state($$SET seam_ik.max_concurrency = 0$$);
SET seam_ik.progress_interval = 0;
RESET ALL;
SELECT set_config('fake.port', :'port', false) \gset

-- the API key is shown masked, and only to who may see it
SHOW seam_ik.api_key;
SET seam_ik.api_key = 'seam_test_a_secret';
SHOW seam_ik.api_key;
SELECT current_setting('seam_ik.api_key');
SELECT count(*) FROM pg_settings WHERE name = 'seam_ik.api_key' OR setting LIKE '%a_secret%' OR reset_val LIKE '%a_secret%';
CREATE FUNCTION pg_temp.current() RETURNS text LANGUAGE sql SET seam_ik.api_key FROM CURRENT AS 'SELECT 1';
CREATE ROLE regress_seam_clerk;
SET ROLE regress_seam_clerk;
SELECT pg_temp.state('SHOW seam_ik.api_key'), pg_temp.state($$SELECT current_setting('seam_ik.api_key')$$), pg_temp.state('SHOW seam_ik.api_key_file');
SHOW seam_ik.endpoint;

-- what only the superuser may set, or who was granted SET
SET seam_ik.api_key = 'x';
SET seam_ik.api_key_file = 'x';
SET seam_ik.endpoint = 'https://example.com';
SET seam_ik.workspace_id = 'x';
SET seam_ik.ca_file = 'x';
SET seam_ik.max_list_size = '1MB';
-- and what anyone may
SET seam_ik.connect_timeout = '1s';
SET seam_ik.request_timeout = '1s';
SET seam_ik.max_retries = 0;
SET seam_ik.max_concurrency = 1000;
SET seam_ik.progress_interval = '1s';
RESET ROLE;
GRANT SET ON PARAMETER seam_ik.api_key, seam_ik.endpoint TO regress_seam_clerk;
SET ROLE regress_seam_clerk;
SET seam_ik.api_key = 'x';
SET seam_ik.endpoint = 'https://example.com';
RESET ROLE;
REVOKE SET ON PARAMETER seam_ik.api_key, seam_ik.endpoint FROM regress_seam_clerk;
-- pg_read_all_settings sees that there is a key, not which
GRANT pg_read_all_settings TO regress_seam_clerk;
SET ROLE regress_seam_clerk;
SHOW seam_ik.api_key;
SELECT count(*) FROM pg_settings WHERE name = 'seam_ik.api_key';
RESET ROLE;
DROP ROLE regress_seam_clerk;

-- keys that are refused: the value is in no message
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_key = '********'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_key = 'seam_test with space'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_key = E'seam_test\r\nX-Evil: 1'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_key = E'seam_test\t'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_key = ' seam_test'$$);
SELECT code, message, detail FROM pg_temp.try($$SELECT set_config('seam_ik.api_key', E'seam_test\n', false)$$);
SELECT code, message, detail FROM pg_temp.try($$ALTER ROLE CURRENT_USER SET seam_ik.api_key = 'a b'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.workspace_id = E'a\nb'$$);
SELECT code, message, detail FROM pg_temp.try($$SET seam_ik.api_kye = 'a'$$);
SELECT pg_temp.state(format('SET seam_ik.api_key = %L', repeat('x', 10000)));
SELECT to_json(c) AS character, pg_temp.state(format('SET seam_ik.api_key = %L', 'seam_test' || c)) AS api_key,
	pg_temp.state(format('SET seam_ik.workspace_id = %L', 'a' || c)) AS workspace_id
FROM (VALUES (' '), (E'\n'), (E'\r'), (E'\x0b'), (E'\x01'), (E'\x7f'), ('é')) v(c);
SHOW seam_ik.api_key;

-- endpoints
SELECT url, pg_temp.state(format('SET seam_ik.endpoint = %L', url)) FROM (VALUES
	('https://connect.getseam.com'), ('https://connect.getseam.com/'), ('https://connect.getseam.com:8443/a/b'), ('HTTPS://EXAMPLE.COM'),
	('https://[2001:db8::1]:8443'), ('http://localhost'), ('http://LOCALHOST:1'), ('http://127.0.0.1:80'), ('http://127.255.1.2'), ('http://[::1]:80'),
	(''), ('connect.getseam.com'), ('ftp://example.com'), ('file:///etc/passwd'), ('http://example.com'), ('http://128.0.0.1'), ('http://127.0.0.1.example.com'),
	('http://localhost.example.com'), ('http://localhost@example.com'), ('http://127.0.0.1@example.com'), ('http://[::2]'), ('http://0.0.0.0'),
	('https://user@example.com'), ('https://user:password@example.com'), ('https://:password@example.com'), ('https://@example.com'),
	('https://example.com?'), ('https://example.com/?a=b'), ('https://example.com#f'), ('https://example.com/a b'), (E'https://example.com/\r\nX: y'),
	('https://'), ('https:///x'), ('https://exa mple.com'), ('https://example.com\@x'), ('https://ex' || chr(228) || 'mple.com'), ('http://localhost%00.example.com')) v(url);
-- and more that must not pass
SELECT to_json(url) AS url, pg_temp.state(format('SET seam_ik.endpoint = %L', url)) FROM (VALUES
	('//connect.getseam.com'),
	('http:///connect.getseam.com'),
	('http:/connect.getseam.com'),
	('http:connect.getseam.com'),
	('HTTP://CONNECT.GETSEAM.COM'),
	('http://localhos'),
	('ftp://127.0.0.1'),
	('file:///etc/passwd'),
	('gopher://localhost'),
	('http://connect.getseam.com'),
	('http://10.0.0.1'),
	('http://[::]'),
	('http://[2001:db8::1]'),
	('http://[::ffff:10.0.0.1]'),
	('http://127.0.0.1.evil.com'),
	('http://127.0.0.1evil.com'),
	('http://localhost.evil.com'),
	('http://evil.com/localhost'),
	('http://evil.com:80/127.0.0.1'),
	('http://localhost@evil.com'),
	('http://localhost:80@evil.com'),
	('http://127.0.0.1\@evil.com'),
	('http://evil.com\@127.0.0.1'),
	('http://evil.com#@127.0.0.1'),
	('http://evil.com?@127.0.0.1'),
	('http://[::1].evil.com'),
	('http://[::1]evil.com'),
	('http://[::1'),
	('http://127.0.0.1%2eevil.com'),
	('http://127.0.0.1%00.evil.com'),
	('http://localhost%20.evil.com'),
	('https://user:hush@connect.getseam.com'),
	('https://user@connect.getseam.com'),
	('https://:@connect.getseam.com'),
	('http://user:hush@localhost'),
	('https://connect.getseam.com?q'),
	('https://connect.getseam.com/a?q=1'),
	('https://connect.getseam.com#f'),
	('https://connect.getseam.com/a#f'),
	('https://connect.getseam.com/a b'),
	('https://connect.getseam.com '),
	(' https://connect.getseam.com'),
	('https://connect .getseam.com'),
	(E'https://connect.getseam.com\r\nX-Evil: 1'),
	(E'https://connect.getseam.com/\n'),
	('https://connect.getseam.com:port'),
	('https://connect.getseam.com:99999'),
	('https://connect.getseam.com:80:80')) v(url);
SELECT position('password' IN message) AS found FROM pg_temp.try($$SET seam_ik.endpoint = 'https://user:password@example.com'$$);

-- no key; kinds of keys that may not call, or not without a workspace
RESET seam_ik.api_key;
SELECT pg_temp.fake() \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SET seam_ik.api_key_file = '/nonexistent/key';
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
RESET seam_ik.api_key_file;
CREATE FUNCTION pg_temp.with_key(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('seam_ik.api_key', key, false);
	RETURN (SELECT code || ' ' || message FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')'));
END $$;
SELECT key, pg_temp.with_key(key) FROM (VALUES ('seam_cst1_x'), ('seam_pk1_x'), ('seam_at1_x'), ('eyJhbGciOi')) v(key);
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT jsonb_array_length(:'requests') AS "requests made";
SET seam_ik.workspace_id = '4d1c24b2-781e-4d1a-8d77-15249ad57c8a';
SELECT key, pg_temp.with_key(key) IS NULL AS called FROM (VALUES ('seam_at1_x'), ('eyJhbGciOi')) v(key);
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT h ->> 1 AS "seam-workspace" FROM jsonb_array_elements(:'requests') r, jsonb_array_elements(r -> 'headers') h WHERE h ->> 0 = 'seam-workspace';

-- a trailing slash of the endpoint makes no double one
SET seam_ik.api_key = 'seam_test_key';
SELECT set_config('seam_ik.endpoint', pg_temp.endpoint() || '/', false) \gset
SELECT pg_temp.state('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');

-- given before the library is loaded, a setting takes effect when it is, within
-- the rights of who gave it
\c
SET seam_ik.request_timeout = '7s';
SET seam_ik.api_key = 'seam_test_before';
SET seam_ik.max_retries = 99;
SET seam_ik.no_such_setting = 1;
LOAD 'seam_ik';
SHOW seam_ik.request_timeout;
SHOW seam_ik.api_key;
SHOW seam_ik.max_retries;
SHOW seam_ik.no_such_setting;
CREATE ROLE regress_seam_clerk;
\c
SET ROLE regress_seam_clerk;
SET seam_ik.endpoint = 'https://example.com';
SET seam_ik.max_retries = 3;
RESET ROLE;
LOAD 'seam_ik';
SHOW seam_ik.endpoint;
SHOW seam_ik.max_retries;
DROP ROLE regress_seam_clerk;
-- a bad key in the placeholder: refused, and not shown
\c
SET seam_ik.api_key = 'seam_test bad';
LOAD 'seam_ik';
SHOW seam_ik.api_key;

-- given before by a role that was granted one of them
CREATE ROLE regress_seam_clerk;
GRANT SET ON PARAMETER seam_ik.endpoint TO regress_seam_clerk;
\c
SET ROLE regress_seam_clerk;
SET seam_ik.api_key = 'seam_test_before';
SET seam_ik.endpoint = 'http://127.0.0.1:1';
RESET ROLE;
LOAD 'seam_ik';
SHOW seam_ik.api_key;
SHOW seam_ik.endpoint;
REVOKE SET ON PARAMETER seam_ik.endpoint FROM regress_seam_clerk;
DROP ROLE regress_seam_clerk;

-- ALTER DATABASE and ALTER ROLE; a key given so is readable by all, of which a
-- session is warned once
SELECT current_database() AS db, current_user AS me \gset
ALTER DATABASE :"db" SET seam_ik.endpoint = 'http://127.0.0.1:1';
ALTER DATABASE :"db" SET seam_ik.endpoint = 'http://example.com';
ALTER DATABASE :"db" SET seam_ik.max_retries = 0;
ALTER DATABASE :"db" SET seam_ik.api_key = 'seam_test_in_catalog';
\c
LOAD 'seam_ik';
SHOW seam_ik.endpoint;
SHOW seam_ik.max_retries;
SHOW seam_ik.api_key;
\set VERBOSITY terse
SELECT seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
SELECT seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
ALTER DATABASE :"db" RESET seam_ik.api_key;
ALTER ROLE :"me" IN DATABASE :"db" SET seam_ik.api_key = 'seam_test_in_catalog';
\c
SELECT seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
ALTER ROLE :"me" IN DATABASE :"db" RESET ALL;
ALTER DATABASE :"db" RESET ALL;
