-- Whatever the session's settings and however Seam writes it: the same row.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

CREATE FUNCTION pg_temp.times(spec text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.fake(spec);
	RETURN (SELECT created_at AT TIME ZONE 'UTC' FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358'));
END $$;
SET DateStyle = 'ISO';
SELECT t, pg_temp.times('set=created_at:"' || t || '"') FROM (VALUES
	('2025-06-14T16:54:17.946559Z'), ('2025-06-14T16:54:17Z'), ('2025-06-14t16:54:17z'), ('2025-06-14 16:54:17Z'), ('2025-06-14T16:54:17.9465594999Z'), ('2025-06-14T16:54:17.9465595Z'),
	('2025-06-14T16:54:17.5Z'), ('2025-06-14T18:54:17+02:00'), ('2025-06-14T11:24:17-05:30'), ('2024-02-29T23:59:60Z'), ('2025-12-31T23:59:59.9999999Z'), ('0001-01-01T00:00:00Z')) v(t);

-- DateStyle, TimeZone, IntervalStyle, search_path
SELECT pg_temp.fake('set=created_at:"2025-06-04T16:54:17.946559Z",set=expires_at:"2025-06-14T16:54:17Z"') \gset
CREATE TEMP TABLE k AS SELECT created_at, expires_at FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') LIMIT 0;
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kolkata';
INSERT INTO k SELECT created_at, expires_at FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
SET DateStyle = 'SQL, MDY';
SET TimeZone = 'America/St_Johns';
SET search_path = pg_temp;
INSERT INTO k SELECT created_at, expires_at FROM public.seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
RESET ALL;
SELECT set_config('fake.port', :'port', false) \gset
SET seam_ik.api_key = 'seam_test_key';
SET seam_ik.revoke_on_rollback = off;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SELECT created_at, expires_at, count(*) FROM k GROUP BY 1, 2;

-- unusual and valid
CREATE FUNCTION pg_temp.key(spec text) RETURNS SETOF seam_instant_key LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.fake(spec);
	RETURN QUERY SELECT * FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
END $$;
SELECT user_identity_id FROM pg_temp.key('nook');
SELECT user_identity_id FROM pg_temp.key('status=201');
SELECT customization, customization_profile_id FROM pg_temp.key('set=customization:null,set=customization_profile_id:null');
SELECT customization FROM pg_temp.key('customization=%7B%7D');
SELECT customization FROM pg_temp.key('customization=' || pg_temp.enc('{"primary_color":"#fff","more":{"n":[1,2.5,true,null,"\u00e9\ud83d\udd11"]}}'));
SELECT workspace_id FROM pg_temp.key('set=workspace_id:"4D1C24B2-781E-4D1A-8D77-15249AD57C8A"');
SELECT user_identity_id FROM pg_temp.key('identity=D92E0C7B-72A1-4063-9EE8-2ACEFC240358');
SELECT instant_key_url FROM pg_temp.key('set=instant_key_url:"https://ik.seam.co/\u00e9\u20ac a\n\\x"');
SELECT user_identity_id FROM pg_temp.key('top=more:%7B%22a%22:1%7D,set=unknown:[1]');
SELECT user_identity_id FROM pg_temp.key('chunked');
SELECT user_identity_id FROM pg_temp.key('http10');
SELECT user_identity_id FROM pg_temp.key('info');
SELECT user_identity_id FROM pg_temp.key('connection_close');
SELECT user_identity_id FROM pg_temp.key('deep=20');

-- every setting that says how to read or write a value, alone
SELECT pg_temp.fake('set=created_at:"2025-06-04T16:54:17.946559Z",set=expires_at:"2025-06-14T16:54:17Z",set=instant_key_id:"1d05c2f6-5b6f-4a9c-b80d-1eca26be12b9",set=client_session_id:"bfe3b1c6-fb9e-48b1-9b5b-c762b2983af6",set=instant_key_url:"https://ik.seam.co/A",set=customization:'
	|| pg_temp.enc('{"primary_color": "\"\\ '' 1.50"}')) \gset
CREATE TEMP TABLE usual AS SELECT k FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') AS k;
CREATE FUNCTION pg_temp.same_with(name text, value text) RETURNS bool
LANGUAGE plpgsql AS $$
DECLARE
	k public.seam_instant_key;
BEGIN
	PERFORM set_config(name, value, true);
	EXECUTE 'SELECT * FROM public.seam_generate_instant_key($1)' INTO k
		USING 'd92e0c7b-72a1-4063-9ee8-2acefc240358'::pg_catalog.uuid;
	PERFORM set_config('search_path', 'public, pg_temp', true);
	RETURN k IS NOT DISTINCT FROM (SELECT usual.k FROM usual);
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value OR undefined_object THEN
	IF name IN ('standard_conforming_strings', 'escape_string_warning') THEN
		RETURN true;	-- newer servers know only one way
	END IF;
	RAISE;
END
$$;
-- a schema that would mislead who looks names up in the search_path
CREATE SCHEMA regress_seam_path;
CREATE DOMAIN regress_seam_path.uuid AS text;
CREATE DOMAIN regress_seam_path.jsonb AS int;
CREATE DOMAIN regress_seam_path.timestamptz AS int;
CREATE TYPE regress_seam_path.seam_instant_key AS (a int);
CREATE FUNCTION regress_seam_path.jsonb_in(cstring) RETURNS pg_catalog.jsonb LANGUAGE internal STRICT AS 'jsonb_in';
CREATE FUNCTION regress_seam_path.uuid_in(cstring) RETURNS pg_catalog.uuid LANGUAGE internal STRICT AS 'uuid_in';
DO $$
DECLARE
	s record;
	same bool;
BEGIN
	FOR s IN SELECT * FROM (VALUES
		('DateStyle', 'ISO, DMY'), ('DateStyle', 'ISO, MDY'), ('DateStyle', 'SQL, DMY'), ('DateStyle', 'SQL, MDY'),
		('DateStyle', 'Postgres, DMY'), ('DateStyle', 'Postgres, MDY'), ('DateStyle', 'German, YMD'),
		('TimeZone', 'America/New_York'), ('TimeZone', 'Asia/Kolkata'), ('TimeZone', 'Pacific/Apia'),
		('TimeZone', '<XYZ>-13:37'), ('timezone_abbreviations', 'India'),
		('IntervalStyle', 'sql_standard'),
		('search_path', ''), ('search_path', 'regress_seam_path, pg_catalog, public'),
		('search_path', 'no_such_schema'),
		('standard_conforming_strings', 'off'), ('escape_string_warning', 'off'), ('backslash_quote', 'off'),
		('bytea_output', 'escape'), ('extra_float_digits', '-15'), ('quote_all_identifiers', 'on'),
		('transform_null_equals', 'on'), ('array_nulls', 'off'), ('row_security', 'off'),
		('default_transaction_read_only', 'on'),
		('work_mem', '64kB')) AS v (name, value)
	LOOP
		BEGIN
			same := pg_temp.same_with(s.name, s.value);
			RAISE EXCEPTION 'undo the setting' USING ERRCODE = 'U0001';
		EXCEPTION WHEN SQLSTATE 'U0001' THEN
			IF same IS DISTINCT FROM true THEN
				RAISE WARNING 'another row with % = %', s.name, s.value;
			END IF;
		END;
	END LOOP;
END
$$;
SET client_min_messages = warning;
DROP SCHEMA regress_seam_path CASCADE;
RESET client_min_messages;
