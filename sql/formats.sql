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

-- DateStyle, TimeZone, IntervalStyle, search_path, bytea_output, standard_conforming_strings
SELECT pg_temp.fake('set=created_at:"2025-06-04T16:54:17.946559Z",set=expires_at:"2025-06-14T16:54:17Z"') \gset
CREATE TEMP TABLE k AS SELECT created_at, expires_at FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358') LIMIT 0;
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kolkata';
INSERT INTO k SELECT created_at, expires_at FROM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
SET DateStyle = 'SQL, MDY';
SET TimeZone = 'America/St_Johns';
SET search_path = pg_temp;
SET standard_conforming_strings = off;
INSERT INTO k SELECT created_at, expires_at FROM public.seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
RESET ALL;
SELECT set_config('fake.port', :'port', false) \gset
SET seam_ik.api_key = 'seam_test_key';
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
