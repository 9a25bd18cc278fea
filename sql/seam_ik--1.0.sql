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

-- A key opens a door: who may issue one is the DBA's decision.
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int, uuid) FROM PUBLIC;
