-- In every encoding the same row; what an encoding cannot hold makes the
-- customization NULL with a warning, and never an error.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\set customization '%7B%22logo_url%22:%22%5Cu00e9%5Cu20ac%22%7D'
\set ascii '%7B%22logo_url%22:%22x%22%7D'
\set kanji '%7B%22logo_url%22:%22%5Cu9375%22%7D'

CREATE DATABASE regress_seam_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_seam_latin9 TEMPLATE template0 ENCODING 'LATIN9' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_seam_eucjp TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_seam_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_seam_win1252 TEMPLATE template0 ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C';

\set query 'SELECT user_identity_id, customization::text COLLATE "C" = \'{"logo_url": "x"}\' AS x, encode(convert_to(customization ->> \'logo_url\', getdatabaseencoding()), \'hex\') AS bytes, instant_key_url FROM seam_generate_instant_key(\'d92e0c7b-72a1-4063-9ee8-2acefc240358\')'

\c regress_seam_latin1
\i :setup
SET client_encoding = 'SQL_ASCII';
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'customization') \gset
:query;
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'ascii') \gset
:query;
-- an error's text, too
SELECT pg_temp.fake('status=400,message=%E2%82%AC%20and%20%C3%A9') \gset
SELECT code, encode(convert_to(detail, 'LATIN1'), 'escape') AS detail FROM pg_temp.try('SELECT seam_generate_instant_key(''d92e0c7b-72a1-4063-9ee8-2acefc240358'')');

\c regress_seam_latin9
\i :setup
SET client_encoding = 'SQL_ASCII';
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'customization') \gset
:query;

\c regress_seam_win1252
\i :setup
SET client_encoding = 'SQL_ASCII';
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'customization') \gset
:query;

\c regress_seam_eucjp
\i :setup
SET client_encoding = 'SQL_ASCII';
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'kanji') \gset
:query;

\c regress_seam_ascii
\i :setup
SELECT pg_temp.fake('set=instant_key_url:"https://ik/%5Cu00e9%5Cu20ac",customization=' || :'customization') \gset
:query;

\c contrib_regression
DROP DATABASE regress_seam_latin1;
DROP DATABASE regress_seam_latin9;
DROP DATABASE regress_seam_eucjp;
DROP DATABASE regress_seam_ascii;
DROP DATABASE regress_seam_win1252;
