\set QUIET on
\pset null '-'
\pset linestyle unicode
\pset border 2

CREATE EXTENSION seam_ik;

-- A booking says who, from when, until when: the key follows the row.
CREATE TABLE stay (
    stay_id     int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    guest       uuid,
    check_in    timestamptz,
    check_out   timestamptz,
    key_id      uuid,
    key_url     text,
    key_expires timestamptz
);
CREATE TRIGGER stay_key AFTER INSERT OR UPDATE OR DELETE ON stay FOR EACH ROW
EXECUTE FUNCTION seam_keep_instant_key_trigger(
    'user_identity_id=guest', 'issue_at=check_in', 'valid_until=check_out',
    'instant_key_id=key_id', 'instant_key_url=key_url', 'expires_at=key_expires');

-- Until nothing is left to be done that is due.
CREATE PROCEDURE wait_for_keys() LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1 .. 200 LOOP
        EXIT WHEN NOT EXISTS (SELECT 1 FROM seam_instant_key_request
            WHERE next_attempt_at IS NOT NULL OR row_task IS NOT NULL OR wake_at <= now());
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;

-- One booking begins now, one next month; one is rolled back, and asks for nothing.
INSERT INTO stay (guest, check_in, check_out) VALUES
    (:'guest', now(), now() + interval '3 days'),
    (:'guest', now() + interval '1 month', now() + interval '33 days');
BEGIN;
INSERT INTO stay (guest, check_in, check_out) VALUES (:'guest', now(), now() + interval '1 day');
ROLLBACK;
CALL wait_for_keys();
SELECT stay_id, check_in, key_url FROM stay ORDER BY stay_id;
SELECT status, count FROM seam_instant_key_queue WHERE count > 0;

-- The phone is lost: the key is replaced.
UPDATE stay SET key_id = NULL WHERE stay_id = 1;
CALL wait_for_keys();
SELECT stay_id, key_url FROM stay WHERE stay_id = 1;

-- Another guest: a new key, and the former one is revoked.
UPDATE stay SET guest = :'other_guest' WHERE stay_id = 1;
CALL wait_for_keys();
SELECT stay_id, key_url FROM stay WHERE stay_id = 1;
SELECT count(*) AS keys_of_the_former_guest FROM seam_list_instant_keys(:'guest');

-- Check-out: the key is revoked, and the columns are cleared.
UPDATE stay SET check_out = now() WHERE stay_id = 1;
CALL wait_for_keys();
SELECT stay_id, key_url FROM stay ORDER BY stay_id;
SELECT count(*) AS keys_of_the_guest FROM seam_list_instant_keys(:'other_guest');

-- The same by calls inside the transaction: it has its key when it is inserted, and waits for Seam.
CREATE TABLE booking (
    booking_id  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room        text NOT NULL,
    guest       uuid,
    nights      int NOT NULL,
    key_id      uuid,
    key_url     text,
    key_expires timestamptz
);
CREATE TRIGGER issue_key BEFORE INSERT OR UPDATE ON booking FOR EACH ROW
EXECUTE FUNCTION seam_generate_instant_key_trigger(
    'user_identity_id=guest', 'max_use_count=nights',
    'instant_key_id=key_id', 'instant_key_url=key_url', 'expires_at=key_expires');
CREATE TRIGGER revoke_key AFTER DELETE OR UPDATE ON booking FOR EACH ROW
EXECUTE FUNCTION seam_delete_instant_key_trigger('instant_key_id=key_id');

INSERT INTO booking (room, guest, nights) VALUES ('101', :'guest', 2), ('102', :'guest', 3), ('103', NULL, 1);

SELECT room, nights, key_url, key_expires FROM booking ORDER BY room;

-- One more by hand: a function call is a row.
SELECT instant_key_url, expires_at FROM seam_generate_instant_key(:'guest', 10) \gset
\echo one more key: :instant_key_url

-- A booking is cancelled: its key is revoked.
DELETE FROM booking WHERE room = '102';
CALL wait_for_keys();
SELECT count(*) AS live_keys FROM seam_list_instant_keys(:'guest');

-- Tidy up: no key of this demo stays alive.
DELETE FROM stay;
DELETE FROM booking;
CALL wait_for_keys();
SELECT seam_delete_instant_key(instant_key_id) FROM seam_get_instant_key(:'instant_key_url');
