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

-- Each try of a request of the outbox; what a call inside a transaction raises its caller has.
CREATE TABLE seam_instant_key_attempt (
	request_id bigint NOT NULL,
	attempt int NOT NULL,
	purpose text NOT NULL,
	attempted_at timestamptz NOT NULL,
	took interval NOT NULL,
	http_status int,
	sqlstate text,
	error text,
	seam_request_id text
);
CREATE INDEX seam_instant_key_attempt_request ON seam_instant_key_attempt (request_id);
COMMENT ON TABLE seam_instant_key_attempt IS
	'each try of a request of seam_instant_key_request, for as long as that is kept, while seam_ik.keep_attempts is on';
COMMENT ON COLUMN seam_instant_key_attempt.attempt IS 'the request''s attempts by then';
COMMENT ON COLUMN seam_instant_key_attempt.purpose IS 'issue or revoke';
COMMENT ON COLUMN seam_instant_key_attempt.took IS 'from attempted_at until the answer, or until it was given up';
COMMENT ON COLUMN seam_instant_key_attempt.http_status IS 'of Seam''s answer; NULL: there was none';
COMMENT ON COLUMN seam_instant_key_attempt.sqlstate IS 'what went wrong; NULL: nothing';
COMMENT ON COLUMN seam_instant_key_attempt.seam_request_id IS 'the id by which Seam''s support finds the try';
REVOKE ALL ON TABLE seam_instant_key_attempt FROM PUBLIC;
GRANT SELECT ON TABLE seam_instant_key_attempt TO pg_monitor;
SELECT pg_catalog.pg_extension_config_dump('seam_instant_key_attempt', '');

-- A pause that somebody wants: one row, or none.
CREATE TABLE seam_ik_paused (
	reason text NOT NULL,
	since timestamptz NOT NULL DEFAULT now(),
	CHECK (octet_length(reason) <= 200)
);
CREATE UNIQUE INDEX seam_ik_paused_once ON seam_ik_paused ((true));
COMMENT ON TABLE seam_ik_paused IS
	'has a row while the worker of this database shall send nothing: see seam_ik_pause() and seam_ik_resume()';
SELECT pg_catalog.pg_extension_config_dump('seam_ik_paused', '');

CREATE FUNCTION seam_cancel_instant_key_requests(sqlstate text DEFAULT NULL, since timestamptz DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'seam_cancel_instant_key_requests'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_cancel_instant_key_requests(text, timestamptz) IS
	'cancel all requests that are unfinished, have failed or could not be written, with this SQLSTATE and since this time: returns their number';

CREATE FUNCTION seam_retry_instant_key_requests(sqlstate text DEFAULT NULL, since timestamptz DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'seam_retry_instant_key_requests'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_retry_instant_key_requests(text, timestamptz) IS
	'put all requests back that have failed, and have all keys written again that could not be, with this SQLSTATE and since this time: returns their number';

CREATE FUNCTION seam_unowned_instant_keys(user_identity_id uuid DEFAULT NULL)
RETURNS TABLE (instant_key_id uuid, user_identity_id uuid, created_at timestamptz, expires_at timestamptz)
AS 'MODULE_PATHNAME', 'seam_unowned_instant_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_unowned_instant_keys(uuid) IS
	'of the instant keys that Seam has of a user identity, or of the whole workspace, those that no row of this database owns';

CREATE FUNCTION seam_ik_pause(reason text)
RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_pause'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_ik_pause(text) IS
	'have the worker of this database send nothing until seam_ik_resume(), also after a restart';

CREATE FUNCTION seam_ik_resume()
RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_resume'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_ik_resume() IS
	'end a pause of the worker of this database';

CREATE FUNCTION seam_ik_activity_rows()
RETURNS TABLE (datid oid, pid int, what text, since timestamptz, done bigint, failed bigint, total bigint, state text, state_until timestamptz, under_way int, max_under_way int, turned_at timestamptz)
AS 'MODULE_PATHNAME', 'seam_ik_activity_rows'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION seam_ik_activity_rows() IS
	'what processes of seam_ik, and sessions that call Seam, say of themselves: use the view seam_ik_activity';

CREATE VIEW seam_ik_activity AS
SELECT a.pid, d.datname, a.what, a.since, a.done, a.failed, a.total, a.state, a.state_until, a.under_way,
	a.max_under_way, a.turned_at, p.since AS paused_since, p.reason AS paused_reason
FROM seam_ik_activity_rows() a
	JOIN pg_catalog.pg_database d ON d.oid = a.datid
	LEFT JOIN seam_ik_paused p ON a.what = 'worker' AND d.datname = pg_catalog.current_database();
COMMENT ON VIEW seam_ik_activity IS
	'what goes on in the whole server: sessions that call Seam, and workers, with their state and since when; a pause of this database';

CREATE FUNCTION seam_ik_stat_rows()
RETURNS TABLE (datid oid, route text, stats_since timestamptz, requests bigint, no_answer bigint, answers_2xx bigint, answers_3xx bigint, answers_4xx bigint, answers_5xx bigint, retries bigint, doubts bigint, doubts_found bigint, doubts_none bigint, doubts_reported bigint, connections_opened bigint, connections_reused bigint, bytes_sent bigint, bytes_received bigint, sqlstates jsonb, total_ms float8, mean_ms float8, p50_ms float8, p95_ms float8, p99_ms float8, max_ms float8)
AS 'MODULE_PATHNAME', 'seam_ik_stat_rows'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION seam_ik_stat_rows() IS
	'counts of requests, by database and route: use the view seam_ik_stat';

CREATE VIEW seam_ik_stat AS
SELECT d.datname, s.route, s.requests, s.answers_2xx, s.answers_3xx, s.answers_4xx, s.answers_5xx, s.no_answer,
	s.sqlstates, s.retries, s.doubts, s.doubts_found, s.doubts_none, s.doubts_reported, s.connections_opened,
	s.connections_reused, s.bytes_sent, s.bytes_received, s.total_ms, s.mean_ms, s.p50_ms, s.p95_ms, s.p99_ms, s.max_ms,
	s.stats_since
FROM seam_ik_stat_rows() s
	JOIN pg_catalog.pg_database d ON d.oid = s.datid;
COMMENT ON VIEW seam_ik_stat IS
	'what was asked of Seam, how it answered and how fast, by database and route, since seam_ik_stat_reset() or a crash';

CREATE FUNCTION seam_ik_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_stat_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION seam_ik_stat_reset() IS
	'have the counts of this database in the view seam_ik_stat begin anew';

CREATE FUNCTION seam_ik_check()
RETURNS TABLE ("check" text, ok boolean, detail text, hint text)
AS 'MODULE_PATHNAME', 'seam_ik_check'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_ik_check() IS
	'whether this installation works, and what keeps it from it, line by line; asks Seam for a list';

REVOKE ALL ON FUNCTION seam_ik_stat_reset() FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_ik_stat_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seam_ik_stat_rows() TO pg_monitor;
REVOKE ALL ON TABLE seam_ik_stat FROM PUBLIC;
GRANT SELECT ON TABLE seam_ik_stat TO pg_monitor;
REVOKE ALL ON FUNCTION seam_ik_check() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seam_ik_check() TO pg_monitor;
REVOKE ALL ON FUNCTION seam_ik_activity_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seam_ik_activity_rows() TO pg_monitor;
REVOKE ALL ON TABLE seam_ik_activity FROM PUBLIC;
GRANT SELECT ON TABLE seam_ik_activity TO pg_monitor;
REVOKE ALL ON FUNCTION seam_cancel_instant_key_requests(text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_retry_instant_key_requests(text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_unowned_instant_keys(uuid) FROM PUBLIC;
REVOKE ALL ON TABLE seam_ik_paused FROM PUBLIC;
GRANT SELECT ON TABLE seam_ik_paused TO pg_monitor;
REVOKE ALL ON FUNCTION seam_ik_pause(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_ik_resume() FROM PUBLIC;
