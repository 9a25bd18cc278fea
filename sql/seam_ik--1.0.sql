/* seam_ik 1.0: install script */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION seam_ik" to load this file. \quit

CREATE TYPE seam_instant_key AS (
	instant_key_id uuid,
	instant_key_url text,
	user_identity_id uuid,
	client_session_id uuid,
	workspace_id uuid,
	customization_profile_id uuid,
	customization jsonb,
	created_at timestamptz,
	expires_at timestamptz
);
COMMENT ON TYPE seam_instant_key IS
	'a Seam Instant Key: its URL opens the door, so treat it as a secret';

CREATE FUNCTION seam_generate_instant_key(user_identity_id uuid, max_use_count int DEFAULT 1)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_generate_instant_key'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_generate_instant_key(uuid, int) IS
	'issue a Seam Instant Key for a user identity: one call to Seam''s API';

-- Without defaults: with defaults on both, a call with literals is ambiguous.
CREATE FUNCTION seam_generate_instant_key(user_identity_id uuid, max_use_count int, customization_profile_id uuid)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_generate_instant_key'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_generate_instant_key(uuid, int, uuid) IS
	'issue a Seam Instant Key with a customization profile for a user identity: one call to Seam''s API';

CREATE FUNCTION seam_generate_instant_keys(user_identity_ids uuid[], max_use_count int DEFAULT 1, customization_profile_id uuid DEFAULT NULL)
RETURNS TABLE (ordinality bigint, user_identity_id uuid, instant_key seam_instant_key, sqlstate text, error text, seam_request_id text)
AS 'MODULE_PATHNAME', 'seam_generate_instant_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_generate_instant_keys(uuid[], int, uuid) IS
	'issue a Seam Instant Key for each of many user identities, several at once; a failure is a row';

CREATE FUNCTION seam_get_instant_key(instant_key_id uuid)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_get_instant_key_by_id'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_get_instant_key(uuid) IS
	'ask Seam for the instant key with this id';

CREATE FUNCTION seam_get_instant_key(instant_key_url text)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_get_instant_key_by_url'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_get_instant_key(text) IS
	'ask Seam for the instant key with this URL, or this id';

CREATE FUNCTION seam_list_instant_keys(user_identity_id uuid DEFAULT NULL)
RETURNS SETOF seam_instant_key
AS 'MODULE_PATHNAME', 'seam_list_instant_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_list_instant_keys(uuid) IS
	'ask Seam for the instant keys of a user identity, or of the whole workspace';

CREATE FUNCTION seam_delete_instant_key(instant_key_id uuid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'seam_delete_instant_key'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_delete_instant_key(uuid) IS
	'revoke a Seam Instant Key: true when it was revoked now, false when it did not exist';

CREATE FUNCTION seam_generate_instant_key_trigger()
RETURNS trigger
AS 'MODULE_PATHNAME', 'seam_generate_instant_key_trigger'
LANGUAGE C;
COMMENT ON FUNCTION seam_generate_instant_key_trigger() IS
	'BEFORE INSERT OR UPDATE trigger FOR EACH ROW that issues the row''s instant key; arguments are field=column pairs';

CREATE FUNCTION seam_delete_instant_key_trigger()
RETURNS trigger
AS 'MODULE_PATHNAME', 'seam_delete_instant_key_trigger'
LANGUAGE C;
COMMENT ON FUNCTION seam_delete_instant_key_trigger() IS
	'AFTER DELETE OR UPDATE trigger FOR EACH ROW that revokes the row''s former instant key; argument instant_key_id=column';

-- A key opens a door: who may issue, see or revoke one is the DBA's decision.
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_keys(uuid[], int, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_get_instant_key(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_get_instant_key(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_list_instant_keys(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_delete_instant_key(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_key_trigger() FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_delete_instant_key_trigger() FROM PUBLIC;
