\set QUIET on
\pset null '-'
\pset linestyle unicode
\pset border 2

CREATE EXTENSION seam_ik;

-- A booking gets its key as it is inserted, and loses it when it goes.
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
SELECT count(*) AS live_keys FROM seam_list_instant_keys(:'guest');

-- The same without a call in the transaction: the outbox.  The key follows right
-- after the commit, and a rolled-back booking gets none.
CREATE TABLE stay (
    stay_id     int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    guest       uuid,
    key_id      uuid,
    key_url     text
);
CREATE TRIGGER enqueue_key AFTER INSERT ON stay FOR EACH ROW
EXECUTE FUNCTION seam_enqueue_instant_key_trigger(
    'user_identity_id=guest', 'instant_key_id=key_id', 'instant_key_url=key_url');
CREATE TRIGGER cancel_key AFTER DELETE OR UPDATE ON stay FOR EACH ROW
EXECUTE FUNCTION seam_cancel_instant_key_request_trigger('instant_key_id=key_id');

BEGIN;
INSERT INTO stay (guest) VALUES (:'guest');
ROLLBACK;
INSERT INTO stay (guest) VALUES (:'guest'), (:'guest');
DO $$ BEGIN
    FOR i IN 1 .. 100 LOOP
        EXIT WHEN NOT EXISTS (SELECT 1 FROM stay WHERE key_id IS NULL);
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;
SELECT stay_id, key_url FROM stay ORDER BY stay_id;
SELECT status, count FROM seam_instant_key_queue WHERE count > 0;

-- Tidy up: no key of this demo stays alive.
DELETE FROM stay;
DO $$ BEGIN
    FOR i IN 1 .. 100 LOOP
        EXIT WHEN NOT EXISTS (SELECT 1 FROM seam_instant_key_request WHERE status <> 'revoked');
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;
DELETE FROM booking;
SELECT seam_delete_instant_key(instant_key_id) FROM seam_get_instant_key(:'instant_key_url');
