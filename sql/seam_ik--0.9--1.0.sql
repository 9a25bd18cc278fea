/* seam_ik 0.9 to 1.0: update script */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION seam_ik UPDATE" to load this file. \quit

-- A library that is older than this script, because the server still has it from before
-- an upgrade of the files, refuses here.
CREATE FUNCTION seam_ik_requires(script text) RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_requires' LANGUAGE C STRICT;
SELECT seam_ik_requires('1.0');
DROP FUNCTION seam_ik_requires(text);

-- Nothing is rewritten: bookings wait no longer than for the lock.
ALTER TABLE seam_instant_key_request
	ADD COLUMN target_columns text[],
	ADD COLUMN target_numbers smallint[],
	ADD COLUMN target_partition oid,
	SET (autovacuum_analyze_threshold = 1000, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON COLUMN seam_instant_key_request.target_columns IS
	'names of the columns of that primary key when the request was enqueued';
COMMENT ON COLUMN seam_instant_key_request.target_numbers IS
	'the same columns'' numbers in target_table, by which they are known whatever their names become; NULL in a copy, where names count';
COMMENT ON COLUMN seam_instant_key_request.target_partition IS
	'the partition of target_table that the row was last seen in';

ALTER FUNCTION seam_delete_instant_key(uuid) COST 100000;

CREATE FUNCTION seam_adopt_instant_key_requests()
RETURNS bigint
AS 'MODULE_PATHNAME', 'seam_adopt_instant_key_requests'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_adopt_instant_key_requests() IS
	'take over the unfinished requests that came along with a copy of the database, and report its calls that were open: returns their number';
REVOKE ALL ON FUNCTION seam_adopt_instant_key_requests() FROM PUBLIC;

GRANT SELECT ON TABLE seam_instant_key_orphan TO pg_monitor;
