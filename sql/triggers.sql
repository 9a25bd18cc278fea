-- The triggers: when a key is issued and revoked, and when not.
\getenv dir PG_ABS_SRCDIR
\set setup :dir '/src/test/setup.psql'
\i :setup

CREATE TABLE booking (
	id int PRIMARY KEY, guest uuid, nights int, note text,
	key_id uuid, key_url text, key_expires timestamptz);
CREATE TRIGGER issue_key BEFORE INSERT OR UPDATE ON booking FOR EACH ROW
EXECUTE FUNCTION seam_generate_instant_key_trigger(
	'user_identity_id=guest', 'max_use_count=nights',
	'instant_key_id=key_id', 'instant_key_url=key_url', 'expires_at=key_expires');
CREATE TRIGGER revoke_key AFTER DELETE OR UPDATE ON booking FOR EACH ROW
EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');
\set g1 '11111111-1111-4111-8111-111111111111'
\set g2 '22222222-2222-4222-8222-222222222222'

-- INSERT: with an identity and no key; not without, not with one
INSERT INTO booking VALUES (1, :'g1', 2), (2, NULL, 3), (3, :'g2', 4) RETURNING id, key_id IS NOT NULL AS key, key_url IS NOT NULL AS url, key_expires > now() AS expires;
INSERT INTO booking VALUES (4, :'g1', 2, NULL, '33333333-3333-4333-8333-333333333333') RETURNING id, key_id, key_url;
INSERT INTO booking VALUES (5, :'g1', NULL) RETURNING key_id IS NOT NULL AS key;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT k ->> 'user_identity_id' AS identity, k ->> 'max_use_count' AS count FROM jsonb_array_elements(:'keys') k;
DELETE FROM booking WHERE id = 5;

-- UPDATE: another guest gets that guest's key, and the former one is revoked
SELECT key_id AS before FROM booking WHERE id = 1 \gset
UPDATE booking SET guest = :'g2' WHERE id = 1 RETURNING key_id <> :'before' AS new_key;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT k ->> 'user_identity_id' AS identity, k -> 'revoked' AS revoked, k ->> 'instant_key_id' = :'before' AS former FROM jsonb_array_elements(:'keys') k;
-- anything else makes no key and revokes none
UPDATE booking SET note = 'x', nights = nights + 1;
UPDATE booking SET guest = guest;
UPDATE booking SET id = id;
-- a guest for a booking that had none
UPDATE booking SET guest = :'g1' WHERE id = 2 RETURNING key_id IS NOT NULL AS key;
-- the statement's own key is taken as it is; the former one is revoked
UPDATE booking SET guest = :'g2', key_id = '44444444-4444-4444-8444-444444444444' WHERE id = 2 RETURNING key_id, key_url IS NOT NULL AS url;
-- another guest, and a part of the key by the statement: the former guest's key goes all the same
UPDATE booking SET guest = :'g1', key_url = 'mine' WHERE id = 3 RETURNING key_id, key_url;
UPDATE booking SET guest = :'g2', key_url = NULL WHERE id = 3;
UPDATE booking SET guest = NULL WHERE id = 3;
UPDATE booking SET guest = :'g2' WHERE id = 3 RETURNING key_id IS NOT NULL AS key;
-- to no guest: the columns are emptied, the key is revoked
UPDATE booking SET guest = NULL WHERE id = 1 RETURNING key_id, key_url, key_expires;
-- a key that is cleared is revoked, and no other is made
UPDATE booking SET key_id = NULL WHERE id = 3 RETURNING key_id, guest IS NOT NULL AS guest;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT * FROM pg_temp.keys(:'keys');
DELETE FROM booking;

-- a failing call fails the statement, and names the trigger
SELECT pg_temp.fake('status=403') \gset
SELECT code, message FROM pg_temp.try($$INSERT INTO booking VALUES (1, '11111111-1111-4111-8111-111111111111', 2)$$);
DO $$ DECLARE c text; BEGIN INSERT INTO booking VALUES (1, '11111111-1111-4111-8111-111111111111', 2); EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS c = PG_EXCEPTION_CONTEXT; RAISE NOTICE '%', split_part(c, E'\n', 1); END $$;
SELECT pg_temp.fake() \gset
SELECT pg_temp.state($$INSERT INTO booking VALUES (1, '11111111-1111-4111-8111-111111111111', 0)$$);
TABLE booking;

-- the firing role needs no EXECUTE; the creating one does
CREATE ROLE regress_seam_clerk;
GRANT ALL ON booking TO regress_seam_clerk;
GRANT CREATE ON SCHEMA public TO regress_seam_clerk;
SET ROLE regress_seam_clerk;
INSERT INTO booking VALUES (1, :'g1', 2) RETURNING key_id IS NOT NULL AS key;
DELETE FROM booking;
CREATE TABLE own (guest uuid, key_id uuid);
CREATE TRIGGER t BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TRIGGER t AFTER DELETE ON own FOR EACH ROW EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');
RESET ROLE;
DROP OWNED BY regress_seam_clerk;
DROP ROLE regress_seam_clerk;

-- what happens on rollback: a live key; a dead key of a row that is back
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
BEGIN;
INSERT INTO booking VALUES (1, :'g1', 2);
ROLLBACK;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT live AS "live after a rolled-back INSERT" FROM pg_temp.keys(:'keys');
INSERT INTO booking VALUES (1, :'g1', 2);
BEGIN;
DELETE FROM booking;
ROLLBACK;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT (SELECT k -> 'revoked' FROM jsonb_array_elements(:'keys') k WHERE k ->> 'instant_key_id' = key_id::text) AS "dead after a rolled-back DELETE" FROM booking;

-- ON CONFLICT: BEFORE INSERT fires first, so its key is left without a row ...
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
INSERT INTO booking VALUES (1, :'g1', 2) ON CONFLICT DO NOTHING;
INSERT INTO booking VALUES (1, :'g1', 2) ON CONFLICT (id) DO UPDATE SET note = 'again';
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT live AS "without a row" FROM pg_temp.keys(:'keys');
-- ... unless it is stored
INSERT INTO booking VALUES (1, :'g1', 2) ON CONFLICT (id) DO UPDATE SET key_id = EXCLUDED.key_id, key_url = EXCLUDED.key_url;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT EXISTS (SELECT FROM jsonb_array_elements(:'keys') k WHERE k ->> 'instant_key_id' = key_id::text AND k -> 'revoked' = 'false') AS stored FROM booking;

-- a later BEFORE trigger that drops the row
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER zzz BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION drop_row();
INSERT INTO booking VALUES (9, :'g1', 2);
DROP TRIGGER zzz ON booking;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT live AS "of a dropped row" FROM pg_temp.keys(:'keys');

-- COPY and MERGE are like INSERT, UPDATE and DELETE
TRUNCATE booking;
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
COPY booking (id, guest, nights) FROM stdin;
1	11111111-1111-4111-8111-111111111111	1
2	22222222-2222-4222-8222-222222222222	1
\.
MERGE INTO booking b USING (VALUES (1, :'g2'::uuid), (2, NULL), (3, :'g1')) v(id, guest) ON b.id = v.id
WHEN MATCHED AND v.guest IS NULL THEN DELETE
WHEN MATCHED THEN UPDATE SET guest = v.guest
WHEN NOT MATCHED THEN INSERT (id, guest, nights) VALUES (v.id, v.guest, 1);
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT * FROM pg_temp.keys(:'keys');
SELECT id, guest, EXISTS (SELECT FROM jsonb_array_elements(:'keys') k WHERE k ->> 'instant_key_id' = key_id::text AND k -> 'revoked' = 'false' AND k ->> 'user_identity_id' = guest::text) AS own_live_key FROM booking ORDER BY id;

-- replica roles fire no ordinary trigger; TRUNCATE none either
SET session_replication_role = replica;
INSERT INTO booking VALUES (7, :'g1', 2) RETURNING key_id;
DELETE FROM booking WHERE id = 1;
RESET session_replication_role;
TRUNCATE booking;
\set after `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT pg_temp.keys(:'keys') = pg_temp.keys(:'after') AS unchanged;
-- who may write the key column can have any key revoked whose id he knows
SELECT instant_key_id AS id FROM seam_generate_instant_key(:'g1') \gset
INSERT INTO booking VALUES (8, NULL, 1, NULL, :'id');
DELETE FROM booking;
SELECT seam_delete_instant_key(:'id') AS "was still there";

-- partitions: a row that moves keeps its key
\set ignored `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/reset '{}'`
CREATE TABLE stay (id int, place int, guest uuid, key_id uuid, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
CREATE TABLE stay1 PARTITION OF stay FOR VALUES IN (1);
CREATE TABLE stay2 (gone int, key_id uuid, guest uuid, place int NOT NULL, id int NOT NULL);
ALTER TABLE stay2 DROP COLUMN gone;
ALTER TABLE stay ATTACH PARTITION stay2 FOR VALUES IN (2);
CREATE TRIGGER issue_key BEFORE INSERT OR UPDATE ON stay FOR EACH ROW EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TRIGGER revoke_key AFTER DELETE OR UPDATE ON stay FOR EACH ROW EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');
INSERT INTO stay VALUES (1, 1, :'g1'), (2, 1, :'g1'), (3, 1, :'g2'), (4, 1, NULL);
CREATE TEMP TABLE was AS SELECT id, key_id FROM stay;
UPDATE stay SET place = 2;
SELECT id, tableoid::regclass, key_id IS NOT DISTINCT FROM (SELECT key_id FROM was WHERE was.id = stay.id) AS kept FROM stay ORDER BY id;
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT * FROM pg_temp.keys(:'keys');
-- moved, and handed to another guest; moved, and cleared; moved, and to nobody
UPDATE stay SET place = 1, guest = :'g2' WHERE id = 1 RETURNING key_id <> (SELECT key_id FROM was WHERE id = 1) AS new_key;
UPDATE stay SET place = 1, key_id = NULL WHERE id = 2 RETURNING key_id;
UPDATE stay SET place = 1, guest = NULL WHERE id = 3 RETURNING key_id;
-- a mixture of rows that move and rows that are new
MERGE INTO stay s USING (VALUES (1), (2), (10)) v(id) ON s.id = v.id
WHEN MATCHED THEN UPDATE SET place = 2
WHEN NOT MATCHED THEN INSERT VALUES (v.id, 2, '11111111-1111-4111-8111-111111111111');
\set keys `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT * FROM pg_temp.keys(:'keys');
SELECT id, place, guest, EXISTS (SELECT FROM jsonb_array_elements(:'keys') k WHERE k ->> 'instant_key_id' = key_id::text AND k -> 'revoked' = 'false' AND k ->> 'user_identity_id' = guest::text) AS own_live_key FROM stay ORDER BY id;
-- as a role that may not read the table, under row security
CREATE ROLE regress_seam_clerk;
GRANT UPDATE (place), SELECT (id, place) ON stay TO regress_seam_clerk;
ALTER TABLE stay ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON stay FOR ALL TO regress_seam_clerk USING (true);
SET ROLE regress_seam_clerk;
UPDATE stay SET place = 1 WHERE id = 1;
RESET ROLE;
DROP OWNED BY regress_seam_clerk;
DROP ROLE regress_seam_clerk;
\set after `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/keys`
SELECT pg_temp.keys(:'keys') = pg_temp.keys(:'after') AS unchanged;
-- a note of an updated row is no longer good in the next statement
CREATE FUNCTION pg_temp.live(id int, OUT key bool, OUT own bool) LANGUAGE sql AS
$$ SELECT key_id IS NOT NULL, (SELECT k.user_identity_id = guest FROM seam_list_instant_keys(guest) k WHERE k.instant_key_id = key_id) FROM stay WHERE stay.id = live.id $$;
BEGIN;
UPDATE stay SET place = 3 - place;
TRUNCATE stay;
INSERT INTO stay VALUES (20, 1, :'g1');
COMMIT;
SELECT * FROM pg_temp.live(20);
-- a statement in between has notes of its own
CREATE FUNCTION add_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id < 90 THEN
		INSERT INTO stay VALUES (NEW.id + 90, 2, NEW.guest);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER add_row BEFORE INSERT ON stay2 FOR EACH ROW EXECUTE FUNCTION add_row();
UPDATE stay SET key_id = NULL WHERE id = 20;
UPDATE stay SET place = 2 WHERE id = 20;
SELECT id, (pg_temp.live(id)).* FROM stay ORDER BY id;
DROP TRIGGER add_row ON stay2;
DROP FUNCTION add_row();
-- a row that moves beside a new one of the same guest: each has its own key, whatever the
-- moved one had and wherever it goes
CREATE FUNCTION pg_temp.moves(statement text, OUT new_key bool, OUT "new live" bool, OUT "old kept" bool, OUT live bigint) LANGUAGE plpgsql AS $$
DECLARE
	guest uuid := gen_random_uuid();
	former uuid;
	fresh uuid;
BEGIN
	INSERT INTO stay VALUES (40, 1, guest) RETURNING key_id INTO former;
	IF statement LIKE '%without a key%' THEN
		UPDATE stay SET key_id = NULL WHERE id = 40;
		former := NULL;
	END IF;
	EXECUTE statement USING guest;
	SELECT key_id INTO fresh FROM (TABLE stay UNION ALL TABLE elsewhere) s WHERE id = 41;
	new_key := fresh IS NOT NULL;
	"new live" := EXISTS (SELECT FROM seam_list_instant_keys(guest) k WHERE k.instant_key_id = fresh);
	"old kept" := (SELECT key_id IS NOT DISTINCT FROM former FROM stay WHERE id = 40);
	live := (SELECT count(*) FROM seam_list_instant_keys(guest));
	DELETE FROM stay WHERE id >= 40;
	DELETE FROM elsewhere;
END $$;
CREATE TABLE elsewhere (LIKE stay INCLUDING INDEXES) PARTITION BY LIST (place);
CREATE TABLE elsewhere1 PARTITION OF elsewhere DEFAULT;
CREATE TRIGGER issue_key BEFORE INSERT OR UPDATE ON elsewhere FOR EACH ROW EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
CREATE TRIGGER revoke_key AFTER DELETE OR UPDATE ON elsewhere FOR EACH ROW EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');
CREATE TABLE stay4 PARTITION OF stay FOR VALUES IN (4);
ALTER TABLE stay4 DISABLE TRIGGER issue_key;
SELECT d.place AS "to", k.what, t.kind, m.*
FROM (VALUES (2), (4)) d(place), (VALUES ('-- with a key'), ('-- without a key')) k(what),
	(VALUES ('MERGE', 'MERGE INTO stay s USING (VALUES (40), (41)) v(id) ON s.id = v.id WHEN MATCHED THEN UPDATE SET place = %s WHEN NOT MATCHED THEN INSERT VALUES (v.id, 2, $1) '),
		('CTE', 'WITH m AS (UPDATE stay SET place = %s WHERE id = 40 RETURNING 1) INSERT INTO stay SELECT 41, 2, $1 FROM (SELECT count(*) FROM m) one '),
		('other table', 'WITH m AS (UPDATE stay SET place = %s WHERE id = 40 RETURNING 1) INSERT INTO elsewhere SELECT 41, 2, $1 FROM (SELECT count(*) FROM m) one ')) t(kind, statement),
	LATERAL pg_temp.moves(format(t.statement, d.place) || k.what) m
ORDER BY 1, 2, 3;
-- ... also where no primary key tells them apart
CREATE TABLE bare (id int, place int, guest uuid, key_id uuid) PARTITION BY LIST (place);
CREATE TABLE bare1 PARTITION OF bare FOR VALUES IN (1);
CREATE TABLE bare2 PARTITION OF bare FOR VALUES IN (2);
CREATE TRIGGER issue_key BEFORE INSERT OR UPDATE ON bare FOR EACH ROW EXECUTE FUNCTION seam_generate_instant_key_trigger('user_identity_id=guest', 'instant_key_id=key_id');
INSERT INTO bare VALUES (1, 1, :'g1');
MERGE INTO bare b USING (VALUES (1, 2), (2, 2)) v(id, place) ON b.id = v.id AND b.place = 1 WHEN MATCHED THEN UPDATE SET place = 2 WHEN NOT MATCHED THEN INSERT VALUES (1, 2, '11111111-1111-4111-8111-111111111111');
SELECT count(DISTINCT key_id) AS "two keys" FROM bare;
UPDATE bare SET key_id = NULL;
UPDATE bare SET place = 1;
SELECT count(key_id) AS "none when they move without" FROM bare;
DROP TABLE bare, elsewhere;
-- a partition without the triggers, and one of another owner
TRUNCATE stay;
CREATE TABLE stay3 PARTITION OF stay FOR VALUES IN (3);
CREATE ROLE regress_seam_owner;
ALTER TABLE stay1 OWNER TO regress_seam_owner;
INSERT INTO stay VALUES (30, 1, :'g1');
UPDATE stay SET place = 3;
SELECT * FROM pg_temp.live(30);
ALTER TABLE stay1 OWNER TO CURRENT_USER;
DROP ROLE regress_seam_owner;
DROP TABLE stay;

-- arguments are checked before any call
\set requests `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
CREATE DOMAIN guest_id AS uuid;
CREATE TABLE bad (guest uuid, who guest_id, n int, big bigint, t text, v5 varchar(5), v35 varchar(35), v36 varchar(36), v255 varchar(255), d date, j json, b bytea, c "char", na name,
	gen uuid GENERATED ALWAYS AS (guest) STORED, key_id uuid, "key=id" uuid);
CREATE FUNCTION pg_temp.check(args text, kind text DEFAULT 'BEFORE INSERT', level text DEFAULT 'ROW', name text DEFAULT 'generate') RETURNS text LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
	EXECUTE format('CREATE TRIGGER t %s ON bad FOR EACH %s EXECUTE FUNCTION seam_%s_instant_key_trigger(%s)', kind, level, name, args);
	SELECT * INTO r FROM pg_temp.try(CASE WHEN kind LIKE '%DELETE%' THEN 'DELETE FROM bad' ELSE $i$INSERT INTO bad (guest) VALUES ('11111111-1111-4111-8111-111111111111')$i$ END);
	DROP TRIGGER t ON bad;
	RETURN r.code || coalesce(' ' || r.message, '');
END $$;
SELECT a, pg_temp.check(a) FROM (VALUES
	(''), ($$'user_identity_id'$$), ($$'=guest'$$), ($$'user_identity_id='$$), ($$'instant_key_id=key_id'$$), ($$'user_identity_id=guest', 'no_such_field=n'$$), ($$'user_identity_id=nobody'$$),
	($$'user_identity_id=GUEST'$$), ($$'user_identity_id=ctid'$$), ($$'user_identity_id=n'$$), ($$'user_identity_id=t'$$), ($$'user_identity_id=gen'$$), ($$'user_identity_id=guest', 'user_identity_id=who'$$),
	($$'user_identity_id=guest', 'max_use_count=t'$$), ($$'user_identity_id=guest', 'max_use_count=0'$$), ($$'user_identity_id=guest', 'max_use_count=-3'$$), ($$'user_identity_id=guest', 'max_use_count=1-2'$$), ($$'user_identity_id=guest', 'max_use_count=99999999999'$$), ($$'user_identity_id=guest', 'customization_profile_id=n'$$),
	($$'user_identity_id=guest', 'instant_key_id=n'$$), ($$'user_identity_id=guest', 'instant_key_id=v35'$$), ($$'user_identity_id=guest', 'instant_key_id=gen'$$), ($$'user_identity_id=guest', 'instant_key_url=key_id'$$), ($$'user_identity_id=guest', 'instant_key_url=v5'$$),
	($$'user_identity_id=guest', 'instant_key_url=j'$$), ($$'user_identity_id=guest', 'expires_at=n'$$), ($$'user_identity_id=guest', 'customization=b'$$), ($$'user_identity_id=guest', 'instant_key_id=t', 'workspace_id=t'$$),
	($$'user_identity_id=guest', 'instant_key_id=guest'$$), ($$'instant_key_id=guest', 'user_identity_id=guest'$$), ($$'user_identity_id=guest', 'instant_key_url=c'$$), ($$'user_identity_id=guest', 'instant_key_url=na'$$)) v(a);
SELECT kind, level, pg_temp.check($$'user_identity_id=guest'$$, kind, level) FROM (VALUES ('AFTER INSERT', 'ROW'), ('BEFORE INSERT', 'STATEMENT'), ('AFTER INSERT', 'STATEMENT')) v(kind, level);
INSERT INTO bad (n) VALUES (1);
SELECT kind, level, pg_temp.check($$'instant_key_id=key_id'$$, kind, level, 'delete') FROM (VALUES ('BEFORE DELETE', 'ROW'), ('AFTER INSERT', 'ROW'), ('AFTER DELETE', 'STATEMENT')) v(kind, level);
SELECT a, pg_temp.check(a, 'AFTER DELETE', 'ROW', 'delete') FROM (VALUES (''), ($$'user_identity_id=guest'$$), ($$'instant_key_id=n'$$), ($$'instant_key_id=t'$$), ($$'instant_key_id=nothing'$$), ($$'instant_key_id=gen'$$), ($$'instant_key_id=who'$$)) v(a);
SELECT code, message FROM pg_temp.try('SELECT seam_delete_instant_key_trigger()');
\set after `python3 "$PG_ABS_SRCDIR"/src/test/fake_seam --ask "$FAKE_PORT" /fake/requests`
SELECT jsonb_array_length(:'after') - jsonb_array_length(:'requests') AS "requests made";
-- types that can be assigned
SELECT a, pg_temp.check(a) FROM (VALUES
	($$'user_identity_id=guest', 'max_use_count=7', 'instant_key_id=who', 'instant_key_url=v255', 'workspace_id=v36', 'client_session_id=t', 'expires_at=d', 'customization=j', 'created_at=big'$$),
	($$'user_identity_id=guest', 'max_use_count=7', 'instant_key_id=who', 'instant_key_url=v255', 'workspace_id=v36', 'client_session_id=t', 'expires_at=d', 'customization=j'$$),
	($$'user_identity_id=guest', 'max_use_count=big', 'instant_key_id=key=id', 'created_at=t'$$)) v(a);
SELECT who IS NOT NULL AS who, v255 ~ '^https' AS v255, length(v36) AS v36, t IS NOT NULL AS t, d > now() AS d, j, "key=id" IS NOT NULL AS "key=id" FROM bad WHERE guest IS NOT NULL;
DROP TABLE bad, booking;
DROP DOMAIN guest_id;
DROP FUNCTION drop_row();
