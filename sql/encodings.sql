--
-- Databases in other encodings: the same row, but for a customization with
-- characters that the encoding cannot hold. It is NULL then, with a warning:
-- the key is there already.
--
\set port `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --detach`
\set fake 'http://127.0.0.1:' :port
\set VERBOSITY sqlstate
SELECT current_database() AS db \gset
CREATE FUNCTION pg_temp.encode(value text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(encode(convert_to(value, 'UTF8'), 'hex'), '(..)', '%\1', 'g')
$$;

-- The endpoints under which the fake Seam answers with what is not ASCII: it
-- writes escapes, or UTF-8 where it is given the whole answer.
CREATE FUNCTION pg_temp.customized(text) RETURNS text LANGUAGE sql AS $$
	SELECT '/do/customization=' || pg_temp.encode(jsonb_build_object('primary_color', $1)::text)
$$;
CREATE FUNCTION pg_temp.with_url(text) RETURNS text LANGUAGE sql AS $$
	SELECT '/do/set=' || pg_temp.encode('instant_key_url:' || to_json($1))
$$;
SELECT :'fake' || pg_temp.customized('plain') AS plain,
	:'fake' || pg_temp.customized('é') AS latin,
	:'fake' || pg_temp.customized('€') AS euro,
	:'fake' || pg_temp.customized('漢字') AS kanji,
	:'fake' || pg_temp.customized('か゚') AS kana,
	:'fake' || pg_temp.customized('😀') AS emoji,
	:'fake' || '/do/body=' || pg_temp.encode('{"instant_key": {
		"client_session_id": "bfe3b1c6-fb9e-48b1-9b5b-c762b2983af6", "created_at": "2025-06-14T16:54:17.946559Z",
		"expires_at": "2025-06-16T16:54:17.946559Z", "instant_key_id": "1d05c2f6-5b6f-4a9c-b80d-1eca26be12b9",
		"instant_key_url": "https://ik.seam.co/ABC", "user_identity_id": "d92e0c7b-72a1-4063-9ee8-2acefc240358",
		"workspace_id": "4d1c24b2-781e-4d1a-8d77-15249ad57c8a", "customization": {"primary_color": "漢字"}}}') AS unescaped,
	:'fake' || pg_temp.with_url('https://ik.seam.co/é') AS latin_url,
	:'fake' || pg_temp.with_url('https://ik.seam.co/😀') AS emoji_url,
	:'fake' || '/do/status=400,message=' || pg_temp.encode('é漢字😀') || ',errors='
		|| pg_temp.encode('{"é": {"_errors": ["漢字😀"]}}') AS refused
\gset
\set names '(''plain'', :''plain''), (''latin'', :''latin''), (''euro'', :''euro''), (''kanji'', :''kanji''), (''kana'', :''kana''), (''emoji'', :''emoji''), (''unescaped'', :''unescaped'')'

-- What is asked of each database. What is in its encoding is shown in hex; a
-- WARNING is one customization that could not be held.
SELECT $$
CREATE EXTENSION seam_ik;
SET seam_ik.api_key = 'seam_test_regress';
SET seam_ik.revoke_on_rollback = off;
CREATE FUNCTION pg_temp.call(endpoint text) RETURNS seam_instant_key LANGUAGE sql AS $f$
	SELECT set_config('seam_ik.endpoint', $1, false);
	SELECT seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358', 3);
$f$;
SELECT getdatabaseencoding(), name, user_identity_id, workspace_id, length(instant_key_url) AS url,
	expires_at - created_at AS lifetime,
	encode(convert_to(customization ->> 'primary_color', getdatabaseencoding()), 'hex') AS primary_color
FROM (VALUES $$ || :'names' || $$) AS v (name, endpoint), pg_temp.call(endpoint);
SELECT encode(convert_to(instant_key_url, getdatabaseencoding()), 'hex') AS url FROM pg_temp.call(:'latin_url');
SELECT user_identity_id, instant_key_url <> '' AS has_url FROM pg_temp.call(:'emoji_url');
-- the text of an error, too: a question mark for what cannot be held
CREATE FUNCTION pg_temp.refusal(OUT code text, OUT detail text) LANGUAGE plpgsql AS $f$
BEGIN
	PERFORM seam_generate_instant_key('d92e0c7b-72a1-4063-9ee8-2acefc240358');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
	detail := encode(convert_to(split_part(detail, E'\n', 1), getdatabaseencoding()), 'escape');
END
$f$;
SET seam_ik.endpoint = :'refused';
SELECT * FROM pg_temp.refusal();
$$ AS block \gset

SET client_min_messages = error;
DROP DATABASE IF EXISTS regress_seam_ik;
RESET client_min_messages;
-- SQL_ASCII as client encoding, because not all can be converted to UTF8;
-- nothing but ASCII is written from here on.

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'UTF8';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'SQL_ASCII';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'LATIN1';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'WIN1252';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'LATIN9';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'KOI8R';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'EUC_KR';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'EUC_JP';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'EUC_JIS_2004';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;

-- There is no conversion to this one, and newer servers do not have it.
SELECT pg_char_to_encoding('MULE_INTERNAL') >= 0 AS known \gset
\if :known
CREATE DATABASE regress_seam_ik TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'MULE_INTERNAL';
\c -reuse-previous=on "dbname=regress_seam_ik client_encoding=SQL_ASCII"
:block
\c :"db"
DROP DATABASE regress_seam_ik;
\endif
