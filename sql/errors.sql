-- Every way in which a call fails: SQLSTATE, message, detail, hint, and how
-- often it was tried.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

-- statuses
SELECT status, pg_temp.call('status=' || status) FROM unnest(ARRAY[400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 499, 500, 501, 502, 503, 504, 599]) status;
SELECT pg_temp.call('status=' || status) AS "30x" FROM unnest(ARRAY[300, 301, 302, 303, 304, 307, 308]) status GROUP BY 1;
SELECT pg_temp.call('status=429,retry_after=60');
-- a status counts, not what an error is called
SELECT pg_temp.call('status=404,html'), pg_temp.call('status=503,nobody'), pg_temp.call('status=401,notjson'), pg_temp.call('status=400,rawnul');

-- what the user reads
\x on
SELECT pg_temp.fake('status=400,type=invalid_input,message=Invalid%20input,errors=' ||
	pg_temp.enc('{"_errors":["whole"],"user_identity_id":{"_errors":["Invalid uuid","Required"]},"a":{"b":{"_errors":["deep"]}}}')) \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
-- (a value is only spoken of where one is named)
SELECT pg_temp.fake('status=400,errors=' || pg_temp.enc('{"_errors":["whole"]}')) \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('status=400,type=invalid_input,message=Invalid%20input') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('status=401,type=unauthorized,message=Invalid%20key') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('status=429,retry_after=77') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('status=500') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('missing=expires_at') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('reset_after') \gset
SELECT code, message, hint FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
-- a text of Seam's: no control characters, not endless, and never the API key
SELECT pg_temp.fake('status=400,message=' || pg_temp.enc(E'a\tb\nc' || repeat('x', 600))) \gset
SELECT length(detail) BETWEEN 500 AND 700 AS bounded, detail LIKE '%a b cxxx%' AS clean FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SELECT pg_temp.fake('echo_auth') \gset
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
\x off

-- answers that are not what the API promises
SELECT spec, pg_temp.call(spec) FROM (VALUES
	('nobody'), ('status=204,nobody'), ('notjson'), ('html'), ('okfalse'), ('top=ok:"yes"'), ('body=[]'), ('body=null'), ('body=%7B%7D'), ('body=%22x%22'),
	('missing=instant_key'), ('top=instant_key:[]'), ('top=instant_key:null'), ('missing=instant_key_id'), ('missing=instant_key_url'), ('missing=user_identity_id'),
	('missing=client_session_id'), ('missing=workspace_id'), ('missing=created_at'), ('missing=expires_at'), ('null=instant_key_url'),
	('set=instant_key_id:1'), ('set=instant_key_id:"x"'), ('set=instant_key_id:"%7Bd92e0c7b-72a1-4063-9ee8-2acefc240358%7D"'), ('set=instant_key_url:1'), ('set=instant_key_url:""'), ('set=workspace_id:true'),
	('set=created_at:"yesterday"'), ('set=created_at:"infinity"'), ('set=created_at:1750000000'), ('set=created_at:"2025-02-29T00:00:00Z"'), ('set=created_at:"2025-06-14T16:54:17"'),
	('set=created_at:"2025-06-14"'), ('set=created_at:"2025-06-14T24:00:00Z"'), ('set=created_at:"2025-06-14T16:54:17.Z"'), ('set=expires_at:"2025-06-14T16:54:17Z "'),
	('set=customization_profile_id:1'), ('set=customization_profile_id:"x"'), ('set=customization:"red"'), ('set=customization:[]'),
	('nul'), ('rawnul'), ('badutf8'), ('surrogate'), ('deep=40'), ('deep=2000'), ('trailing'), ('dup=instant_key_url'), ('dup=instant_key'), ('dup=ok'),
	('identity=00000000-0000-4000-8000-000000000000'), ('redirect=http://127.0.0.1/')) v(spec);

-- an answer that is too large, and one that is not
SELECT pg_temp.call('big=1048576'), pg_temp.call('big=1048577'), pg_temp.call('big=3000000'), pg_temp.call('manyheaders=1100'), pg_temp.call('bigheader=200000');

-- sent, and no whole answer
SELECT spec, pg_temp.call(spec) FROM (VALUES ('reset'), ('reset_after'), ('close'), ('close_after'), ('truncate=0'), ('truncate=10')) v(spec);
SET seam_ik.request_timeout = '1s';
SELECT spec, pg_temp.call(spec) FROM (VALUES ('hang'), ('hang_after'), ('drip=20'), ('delay=5000')) v(spec);
RESET seam_ik.request_timeout;

-- nothing was sent
SET seam_ik.max_retries = 0;
SET seam_ik.endpoint = 'http://127.0.0.1:1';
SELECT * FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SET seam_ik.endpoint = 'https://no-such-host.invalid';
SELECT code, message FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
SET seam_ik.connect_timeout = '300ms';
SELECT set_config('seam_ik.endpoint', replace(pg_temp.endpoint(), 'http:', 'https:'), false) \gset
SELECT code, message FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
RESET seam_ik.connect_timeout;
SET seam_ik.ca_file = '/nonexistent.pem';
SELECT code, message FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
RESET seam_ik.ca_file;
RESET seam_ik.max_retries;

-- how often each was tried: only what was surely not processed is again
-- (forget what came before)
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
SELECT pg_temp.call('status=429,times=1'), pg_temp.call('status=429,times=2,retry_after=0'), pg_temp.call('status=429,type=for_ever'), pg_temp.call('status=500,type=once'),
	pg_temp.call('status=408,type=once'), pg_temp.call('status=503,type=once,retry_after=0'), pg_temp.call('reset,delay=1'), pg_temp.call('reset_after,delay=1'), pg_temp.call('close_after,delay=1'), pg_temp.call('truncate=9,delay=1');
SET seam_ik.max_retries = 0;
SELECT pg_temp.call('status=429,type=no_retry');
RESET seam_ik.max_retries;
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT r ->> 'spec' AS spec, count(*) AS requests FROM jsonb_array_elements(:'requests') r GROUP BY 1 ORDER BY min((r ->> 'n')::int);
-- Retry-After is waited for, and not beyond request_timeout
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
SELECT pg_temp.call('status=429,times=1,retry_after=1');
SET seam_ik.request_timeout = '5s';
SELECT pg_temp.call('status=429,times=1,retry_after=6');
RESET seam_ik.request_timeout;
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT r ->> 'spec' AS spec, count(*) AS requests, max((r ->> 'time')::float8) - min((r ->> 'time')::float8) BETWEEN 0.99 AND 30 AS waited FROM jsonb_array_elements(:'requests') r GROUP BY 1 ORDER BY 1;

-- a kept connection that dies after the request: in doubt, and never sent again
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
\c
\i :setup
SELECT pg_temp.call('die_on_reuse') AS first, pg_temp.call('die_on_reuse') AS second, pg_temp.call('die_on_reuse') AS third;
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT jsonb_array_length(:'requests') AS requests, jsonb_array_length(:'keys') AS keys;

-- one that was closed between two calls does no harm
SELECT pg_temp.call('close_idle');
SELECT pg_sleep(1) IS NULL AS slept;
SELECT pg_temp.call('type=after');

-- more answers that are not what the API promises; each says what to do, and
-- none shows the URL of a key
CREATE FUNCTION pg_temp.try_with(spec text, OUT code text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.fake(spec);
	SELECT * INTO code, message, detail, hint
	FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');
END $$;
CREATE TEMP TABLE wrong AS SELECT spec, t.*
FROM (VALUES
	('status=301'), ('status=304,nobody'), ('missing=instant_key_url,set=Instant_Key_URL:"https://ik.seam.co/X"'), ('set=instant_key_url:%7B%7D'),
	('set=client_session_id:""'), ('set=expires_at:"tomorrow"'), ('set=expires_at:"2025-06-16T16:54:17 America/New_York"'),
	('set=expires_at:"999999-06-16T16:54:17Z"'), ('set=instant_key_url:null'), ('deep=500'), ('dup=instant_key_id'), ('badutf8'), ('missing=created_at'),
	('identity=00000000-0000-4000-8000-000000000000')) v(spec),
	pg_temp.try_with(spec) t;
SELECT spec, code, hint <> '' AS hint, concat(message, detail, hint) LIKE '%ik.seam.co%' AS shows_url FROM wrong;

-- bodies of errors that are none of Seam's
SELECT pg_temp.call('status=400,body=' || pg_temp.enc(body)), body
FROM (VALUES ('{"error": "no", "ok": false}'), ('{"error": null}'), ('{"error": {"type": 1, "message": {}, "validation_errors": [1]}}'),
	('{"error": {"type": "\ud800", "message": "\u0000"}}'), ('{"ok": true}'), ('[]')) v(body);
SELECT pg_temp.call('status=400,body=' || pg_temp.enc(repeat('{"a":', 500) || '1' || repeat('}', 500))) AS "nested too deep";

-- what is wrong with each parameter: no more than twenty, and no endless path
SELECT pg_temp.fake('status=400,errors=' || pg_temp.enc(format('{"a": {"%s": {"b": {"_errors": ["deep"]}}, "c": {"_errors": ["near"]}}, "many": {"_errors": [%s]}, "d": {"_errors": ["one more"]}}',
	repeat('n', 3000), (SELECT string_agg(format('"no. %s"', n), ',') FROM generate_series(1, 25) n)))) \gset
SELECT unnest(string_to_array(detail, E'\n')) AS detail FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');

-- Retry-After as a date
SELECT pg_temp.enc(to_char(now() AT TIME ZONE 'GMT' + interval '4 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"')) AS date \gset
SELECT pg_temp.call('status=429,times=1,retry_after=' || :'date');
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT count(*) AS requests, max((r ->> 'time')::float8) - min((r ->> 'time')::float8) BETWEEN 0.9 AND 30 AS waited
FROM jsonb_array_elements(:'requests') r WHERE r ->> 'spec' LIKE 'status=429,times=1,retry_after=\%%';

-- wherever the API key comes back in an answer, no message shows it
SET seam_ik.api_key = 'seam_test_hush';
SELECT what, code, strpos(concat(message, detail, hint), 'hush') > 0 AS shown
FROM (VALUES
	('message', 'echo_auth'),
	('type', 'status=400,type=seam_test_hush'),
	('validation error', 'status=400,errors=' || pg_temp.enc('{"a": {"_errors": ["seam_test_hush"]}}')),
	('path of one', 'status=400,errors=' || pg_temp.enc('{"seam_test_hush": {"_errors": ["Required"]}}')),
	('request id', 'status=500,header=' || pg_temp.enc('seam-request-id: seam_test_hush')),
	('no JSON', 'body=seam_test_hush'),
	('redirect', 'redirect=' || pg_temp.enc('https://seam_test_hush.example.com')),
	('id', 'set=instant_key_id:"seam_test_hush"'),
	('time', 'set=created_at:"seam_test_hush"')) v(what, spec),
	pg_temp.try_with(spec) t;

-- URLs of keys in a text of Seam's, however they are written; and what is none
CREATE FUNCTION pg_temp.get_with(said text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.fake('status=404,type=t,message=' || pg_temp.enc(said));
	RETURN (SELECT substring(detail, '^HTTP status 404, type "t": (.*)\n') FROM pg_temp.try('SELECT seam_get_instant_key(''https://localhost/Open Sesame'')'));
END $$;
SELECT pg_temp.get_with(said) FROM (VALUES
	('no key https://ik.seam.co/OpenSesame found'), ('HTTPS://IK.SEAM.CO/OPENSESAME'), ('(Http://ik.seam.co/OpenSesame)'), ('seam://key/OpenSesame'),
	('ik.seam.co/OpenSesame is not known'), ('url="IK.Seam.Co/OpenSesame"'), ('//ik.seam.co/OpenSesame'), ('https:\/\/ik.seam.co\/OpenSesame'),
	('keys.example.com:8443/a?b=OpenSesame'), ('127.0.0.1/OpenSesame'), ('localhost/Open Sesame'), ('HTTPS://LOCALHOST/OPEN SESAME!'),
	('either/or, e.g. user_identities/generate_instant_key; version 1.5, at 10:30. https'), ('a.b.c: d')) v(said);
