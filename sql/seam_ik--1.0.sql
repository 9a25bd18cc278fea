/* seam_ik 1.0: install script */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION seam_ik" to load this file. \quit

-- A library that is older than this script, because the server still has it from before
-- an upgrade of the files, refuses here.
CREATE FUNCTION seam_ik_requires(script text) RETURNS void
AS 'MODULE_PATHNAME', 'seam_ik_requires' LANGUAGE C STRICT;
SELECT seam_ik_requires('1.0');
DROP FUNCTION seam_ik_requires(text);

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

-- What calls Seam has a COST that makes the planner check all other conditions of
-- a WHERE clause first: what it issues or revokes is of rows that qualify.

CREATE FUNCTION seam_generate_instant_key(user_identity_id uuid, max_use_count int DEFAULT 1)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_generate_instant_key'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_generate_instant_key(uuid, int) IS
	'issue a Seam Instant Key for a user identity: one call to Seam''s API';

-- Without defaults of what the first has, too: else a call with literals would be ambiguous.
CREATE FUNCTION seam_generate_instant_key(user_identity_id uuid, max_use_count int, customization_profile_id uuid, seam_workspace uuid DEFAULT NULL)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_generate_instant_key'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_generate_instant_key(uuid, int, uuid, uuid) IS
	'issue a Seam Instant Key with a customization profile, or in a workspace, for a user identity: one call to Seam''s API';

CREATE FUNCTION seam_generate_instant_keys(user_identity_ids uuid[], max_use_count int DEFAULT 1, customization_profile_id uuid DEFAULT NULL, seam_workspace uuid DEFAULT NULL)
RETURNS TABLE (ordinality bigint, user_identity_id uuid, instant_key seam_instant_key, sqlstate text, error text, seam_request_id text)
AS 'MODULE_PATHNAME', 'seam_generate_instant_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_generate_instant_keys(uuid[], int, uuid, uuid) IS
	'issue a Seam Instant Key for each of many user identities, several at once; a failure is a row';

CREATE FUNCTION seam_get_instant_key(instant_key_id uuid)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_get_instant_key_by_id'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_get_instant_key(uuid) IS
	'ask Seam for the instant key with this id';

CREATE FUNCTION seam_get_instant_key(instant_key_url text)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_get_instant_key_by_url'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_get_instant_key(text) IS
	'ask Seam for the instant key with this URL, or this id';

CREATE FUNCTION seam_list_instant_keys(user_identity_id uuid DEFAULT NULL)
RETURNS SETOF seam_instant_key
AS 'MODULE_PATHNAME', 'seam_list_instant_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;
COMMENT ON FUNCTION seam_list_instant_keys(uuid) IS
	'ask Seam for the instant keys of a user identity, or of the whole workspace';

CREATE FUNCTION seam_delete_instant_key(instant_key_id uuid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'seam_delete_instant_key'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 100000;
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
	'AFTER DELETE OR UPDATE trigger FOR EACH ROW that revokes the row''s former instant key; arguments instant_key_id=column, seam_workspace=column';

-- A key opens a door: who may issue, see or revoke one is the DBA's decision.
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_key(uuid, int, uuid, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_keys(uuid[], int, uuid, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_get_instant_key(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_get_instant_key(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_list_instant_keys(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_delete_instant_key(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_generate_instant_key_trigger() FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_delete_instant_key_trigger() FROM PUBLIC;

-- ---------- the outbox ----------

-- What tells this installation of the extension from every other: a random number.  It
-- goes where the files go, but no dump has it, so what is restored has another origin than
-- what is made in the database that it is restored to.  It is a sequence because a
-- publication FOR ALL TABLES would publish a table's row, too.
CREATE SEQUENCE seam_instant_key_installation MINVALUE -9223372036854775808;
COMMENT ON SEQUENCE seam_instant_key_installation IS
	'a random number that tells this installation of extension seam_ik from others; never to be changed';
SELECT pg_catalog.setval('seam_instant_key_installation', pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::text, 0));

CREATE TABLE seam_instant_key_request (
	request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	reference text,
	user_identity_id uuid,
	max_use_count int,
	customization_profile_id uuid,
	target_table regclass,
	target_key jsonb,
	target_fields text[],
	target_hash bigint,
	status text COLLATE "C" NOT NULL,
	attempts int NOT NULL DEFAULT 0,
	enqueued_at timestamptz NOT NULL DEFAULT now(),
	next_attempt_at timestamptz,
	attempted_at timestamptz,
	attempt_timeout int,
	seam_time timestamptz,
	finished_at timestamptz,
	instant_key seam_instant_key,
	sqlstate text,
	error text,
	seam_request_id text,
	enqueued_by oid,
	system_identifier bigint NOT NULL,
	origin bigint NOT NULL,
	timeline_id int,
	transaction_id xid8,
	account bigint,
	target_columns text[],
	target_numbers smallint[],
	target_partition oid,
	api_key_hash bigint,
	workspace_id uuid,
	look_again_at timestamptz,
	look_again_from timestamptz,
	dismissed_at timestamptz,
	call_id uuid,
	issue_at timestamptz,
	valid_until timestamptz,
	stay_id bigint,
	successor_id bigint,
	is_renewal boolean,
	former_expires_at timestamptz,
	replaces_key uuid,
	stay_end text COLLATE "C",
	wake_at timestamptz,
	row_task text COLLATE "C",
	row_task_at timestamptz,
	seam_workspace uuid,
	CHECK (stay_end IN ('over', 'unwanted', 'cancelled', 'left')),
	CHECK (row_task IN ('look', 'clear')),
	CHECK (octet_length(reference) <= 200),
	CHECK (status IN ('pending', 'in_flight', 'issued', 'failed', 'cancelled', 'revoking', 'revoked'))
) WITH (
	-- Rows change three times and then rest.  A share of the table is small
	-- while the queue is, and spares what rests when it is large.
	autovacuum_vacuum_threshold = 1000,
	autovacuum_vacuum_scale_factor = 0.02,
	autovacuum_analyze_threshold = 1000,
	autovacuum_analyze_scale_factor = 0.05,
	autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE seam_instant_key_request IS
	'the outbox: instant keys that are to be issued or revoked, and those that were; the keys'' URLs open doors';
COMMENT ON SEQUENCE seam_instant_key_request_request_id_seq IS
	'ids of requests';
COMMENT ON COLUMN seam_instant_key_request.target_key IS
	'values of the primary key of the row of target_table that the instant key is written to';
COMMENT ON COLUMN seam_instant_key_request.target_columns IS
	'names of the columns of that primary key when the request was enqueued';
COMMENT ON COLUMN seam_instant_key_request.target_numbers IS
	'the same columns'' numbers in target_table, by which they are known whatever their names become; NULL in a copy, where names count';
COMMENT ON COLUMN seam_instant_key_request.target_partition IS
	'the partition of target_table that the row was last seen in';
COMMENT ON COLUMN seam_instant_key_request.target_fields IS
	'field=column pairs: where in that row';
COMMENT ON COLUMN seam_instant_key_request.next_attempt_at IS
	'when the worker or the writer has to do something about the request: -infinity: at once; a time: when its pause ends; NULL: never';
COMMENT ON COLUMN seam_instant_key_request.attempt_timeout IS
	'milliseconds after attempted_at within which the attempt may have issued a key';
COMMENT ON COLUMN seam_instant_key_request.call_id IS
	'of what a synchronous call has issued, or may have: the call, as in seam_instant_key_call; such a request is never sent again';
COMMENT ON COLUMN seam_instant_key_request.transaction_id IS
	'of a synchronous call: the (sub)transaction that asked for the instant key; without a call_id it has rolled back, and the key is to be revoked';
COMMENT ON COLUMN seam_instant_key_request.seam_time IS
	'attempted_at by the clock of Seam, of the endpoint of then, when that was known';
COMMENT ON COLUMN seam_instant_key_request.system_identifier IS
	'of the server whose roles and transactions enqueued_by and transaction_id mean';
COMMENT ON COLUMN seam_instant_key_request.origin IS
	'a hash of the server, the database and the installation of the extension that the request belongs to: no other worker touches it';
COMMENT ON COLUMN seam_instant_key_request.account IS
	'tells apart the endpoints and workspace settings with which requests were made';
COMMENT ON COLUMN seam_instant_key_request.api_key_hash IS
	'tells apart the API keys with which requests were made';
COMMENT ON COLUMN seam_instant_key_request.workspace_id IS
	'the workspace in which the request was made, as it was set or as other answers had told it, when it was known';
COMMENT ON COLUMN seam_instant_key_request.look_again_at IS
	'a lost answer was settled, since there was no instant key: when to ask once more whether one has appeared late';
COMMENT ON COLUMN seam_instant_key_request.look_again_from IS
	'since when that instant key may have been created, by Seam''s clock';
COMMENT ON COLUMN seam_instant_key_request.dismissed_at IS
	'of what is reported: when seam_cancel_instant_key_request() took it off the view seam_instant_key_orphan';
COMMENT ON COLUMN seam_instant_key_request.issue_at IS
	'when the instant key is to be issued, by Seam''s clock; NULL: at once; infinity: never';
COMMENT ON COLUMN seam_instant_key_request.valid_until IS
	'when the stay ends, by Seam''s clock, and its instant keys are revoked; NULL: never';
COMMENT ON COLUMN seam_instant_key_request.stay_id IS
	'the first request of the stay, whose instant keys follow each other; NULL: a single instant key, which is not renewed';
COMMENT ON COLUMN seam_instant_key_request.successor_id IS
	'the request of the stay that comes after this one; NULL: it is the newest';
COMMENT ON COLUMN seam_instant_key_request.is_renewal IS
	'the instant key renews that of the request before, which lives until it expires';
COMMENT ON COLUMN seam_instant_key_request.former_expires_at IS
	'of a renewal: until when it is tried, since that instant key expires then';
COMMENT ON COLUMN seam_instant_key_request.replaces_key IS
	'the instant key that the row showed when this one was asked for, and that it may be written over';
COMMENT ON COLUMN seam_instant_key_request.stay_end IS
	'why no instant key is wanted any more: the stay is over; the row is gone or does not want one; somebody has cancelled it; or another one was written to the row by hand';
COMMENT ON COLUMN seam_instant_key_request.wake_at IS
	'when the worker has to look at the stay, by Seam''s clock: -infinity: at once; infinity: not before it changes';
COMMENT ON COLUMN seam_instant_key_request.row_task IS
	'what is to be done with the row: look whether it still wants the instant key, or clear the columns that show it';
COMMENT ON COLUMN seam_instant_key_request.row_task_at IS
	'when that is to be done: -infinity: at once; or when a pause ends';
COMMENT ON COLUMN seam_instant_key_request.seam_workspace IS
	'the workspace at Seam that was asked for, in which everything about the instant key is asked; NULL: that of the settings';

-- What the processes of this origin have to do, by kind and time.
CREATE INDEX seam_instant_key_request_due ON seam_instant_key_request
	(status, origin, next_attempt_at, request_id) WHERE next_attempt_at IS NOT NULL;
-- Counts, and what is old enough to be deleted.
CREATE INDEX seam_instant_key_request_finished ON seam_instant_key_request
	(status, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX seam_instant_key_request_error ON seam_instant_key_request
	(status, attempted_at DESC NULLS LAST) WHERE error IS NOT NULL;
-- Whose key is it?
CREATE INDEX seam_instant_key_request_key ON seam_instant_key_request
	(((instant_key).instant_key_id)) WHERE (instant_key).instant_key_id IS NOT NULL;
-- Who owns what a synchronous call has issued?
CREATE INDEX seam_instant_key_request_call ON seam_instant_key_request
	(call_id) WHERE call_id IS NOT NULL;
-- The requests of a row of a user's table, and those of a stay.
CREATE INDEX seam_instant_key_request_target ON seam_instant_key_request
	(target_hash) WHERE target_hash IS NOT NULL;
-- The stays of this origin, by when there is something to do.  (A key's end, its renewal
-- and its stay's beginning and end are by Seam's clock.)
CREATE INDEX seam_instant_key_request_wake ON seam_instant_key_request
	(origin, wake_at, request_id) WHERE wake_at IS NOT NULL;
-- Those that have a key, which may have to be renewed earlier than was known.
CREATE INDEX seam_instant_key_request_renewable ON seam_instant_key_request
	(origin, request_id) WHERE status = 'issued' AND wake_at IS NOT NULL;
-- Rows that are to be looked at, or whose columns are to be cleared.
CREATE INDEX seam_instant_key_request_row_task ON seam_instant_key_request
	(origin, row_task_at, request_id) WHERE row_task IS NOT NULL;

-- Whose keys are looked for once more, and when?
CREATE INDEX seam_instant_key_request_again ON seam_instant_key_request
	(origin, look_again_at, user_identity_id) WHERE look_again_at IS NOT NULL;

SELECT pg_catalog.pg_extension_config_dump('seam_instant_key_request', '');
SELECT pg_catalog.pg_extension_config_dump('seam_instant_key_request_request_id_seq', '');

-- The journal of synchronous calls: the intent to have instant keys issued, from before
-- the call until the fate of its transaction is known.  It is inserted and deleted, and
-- never updated: what the call has issued stands in the outbox.
CREATE TABLE seam_instant_key_call (
	call_id uuid PRIMARY KEY,
	transaction_id xid8 NOT NULL,
	top_transaction_id xid8 NOT NULL,
	user_identity_ids uuid[] NOT NULL,
	max_use_count int,
	customization_profile_id uuid,
	requested_at timestamptz NOT NULL,
	attempt_timeout int NOT NULL,
	seam_time timestamptz,
	account bigint,
	system_identifier bigint NOT NULL,
	origin bigint NOT NULL,
	timeline_id int NOT NULL,
	data_directory_id bigint NOT NULL,
	api_key_hash bigint,
	seam_workspace uuid
) WITH (
	autovacuum_vacuum_threshold = 1000,
	autovacuum_vacuum_scale_factor = 0,
	autovacuum_vacuum_cost_delay = 0,
	-- it takes a lock that calls would wait for
	vacuum_truncate = false
);
COMMENT ON TABLE seam_instant_key_call IS
	'the journal: instant keys that calls inside transactions are about to have issued, until it is known whether the transaction has committed';
COMMENT ON COLUMN seam_instant_key_call.transaction_id IS
	'the (sub)transaction that the call is made in, and that inserts what it has issued into the outbox';
COMMENT ON COLUMN seam_instant_key_call.top_transaction_id IS
	'the transaction that this one is of';
COMMENT ON COLUMN seam_instant_key_call.attempt_timeout IS
	'milliseconds after requested_at within which the call may have issued an instant key';
COMMENT ON COLUMN seam_instant_key_call.seam_time IS
	'requested_at by the clock of Seam, when that was known';
COMMENT ON COLUMN seam_instant_key_call.system_identifier IS
	'of the server whose transaction transaction_id means';
COMMENT ON COLUMN seam_instant_key_call.origin IS
	'as in seam_instant_key_request';
COMMENT ON COLUMN seam_instant_key_call.account IS
	'as in seam_instant_key_request';
COMMENT ON COLUMN seam_instant_key_call.data_directory_id IS
	'tells the files that this was written to from a copy of them';
COMMENT ON COLUMN seam_instant_key_call.api_key_hash IS
	'as in seam_instant_key_request';
COMMENT ON COLUMN seam_instant_key_call.seam_workspace IS
	'as in seam_instant_key_request';
-- What has committed is in the outbox: there is nothing to know of it in a copy.
SELECT pg_catalog.pg_extension_config_dump('seam_instant_key_call',
	$$WHERE CASE WHEN transaction_id < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
	THEN pg_catalog.pg_xact_status(transaction_id) IS DISTINCT FROM 'committed' ELSE true END$$);

-- Which users' tables the writer writes to, as far as a crash must not make that
-- forgotten.  (No dump has it: it says nothing of a copy.)
CREATE TABLE seam_instant_key_writing (
	origin bigint,
	target_table oid,
	writing boolean NOT NULL,
	crashes int NOT NULL DEFAULT 0,
	stuck int NOT NULL DEFAULT 0,
	not_before timestamptz,
	code bigint,
	PRIMARY KEY (origin, target_table)
);
COMMENT ON TABLE seam_instant_key_writing IS
	'tables that instant keys are being written to, and those whose triggers have crashed the server or did not end';
COMMENT ON COLUMN seam_instant_key_writing.origin IS
	'as in seam_instant_key_request';
COMMENT ON COLUMN seam_instant_key_writing.writing IS
	'the table''s code may be running: what is set when a writer starts was left by a crash';
COMMENT ON COLUMN seam_instant_key_writing.crashes IS
	'crashes of the server, one after another, while rows of the table were written; from 3 on none is';
COMMENT ON COLUMN seam_instant_key_writing.stuck IS
	'processes, one after another, that had to be ended because the table''s code did not';
COMMENT ON COLUMN seam_instant_key_writing.not_before IS
	'no row is written before, because of that';
COMMENT ON COLUMN seam_instant_key_writing.code IS
	'a hash that tells whether the table''s triggers, their functions, or its constraints have changed since';

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

CREATE VIEW seam_instant_key_orphan AS
SELECT request_id, transaction_id, user_identity_id, (instant_key).instant_key_id, status,
	enqueued_at AS since, attempts, sqlstate, error AS last_error
FROM seam_instant_key_request
WHERE (status = 'revoking' AND transaction_id IS NOT NULL AND call_id IS NULL)
	OR (status = 'failed' AND sqlstate = '08007' AND dismissed_at IS NULL)
	OR (status = 'issued' AND sqlstate = '08007' AND call_id IS NOT NULL AND dismissed_at IS NULL);
COMMENT ON VIEW seam_instant_key_orphan IS
	'keys of synchronous calls whose transactions rolled back, and that wait to be revoked; and what is only reported: keys that may be alive though nobody has them';

CREATE VIEW seam_instant_key_queue AS
SELECT s.status,
	u.count + f.count + w.count + l.count AS count,
	-- (the clock may have been set back)
	now() - least(u.oldest, f.oldest, w.oldest, l.oldest,
		CASE WHEN u.count + f.count + w.count + l.count > 0 THEN now() END) AS oldest_age,
	e.error AS last_error
FROM (VALUES ('scheduled'), ('pending'), ('in_flight'), ('issued'), ('failed'), ('cancelled'), ('revoking'), ('revoked')) s(status),
	LATERAL (SELECT count(*) AS count,
			min(greatest(r.enqueued_at, CASE WHEN r.status IN ('pending', 'in_flight') THEN r.issue_at END)) AS oldest
		FROM seam_instant_key_request r
		WHERE r.status = s.status AND r.next_attempt_at IS NOT NULL AND r.finished_at IS NULL) u,
	LATERAL (SELECT count(*) AS count, min(r.finished_at) AS oldest
		FROM seam_instant_key_request r
		WHERE r.status = s.status AND r.finished_at IS NOT NULL) f,
	LATERAL (SELECT count(*) AS count, min(r.enqueued_at) AS oldest
		FROM seam_instant_key_request r
		WHERE s.status = 'scheduled' AND r.status = 'pending' AND r.next_attempt_at IS NULL
			AND r.wake_at IS NOT NULL AND r.row_task IS NULL AND r.issue_at > now()) w,
	-- what has come due, but was not looked at yet
	LATERAL (SELECT count(*) AS count,
			min(greatest(r.enqueued_at, CASE WHEN r.issue_at <= now() THEN r.issue_at END)) AS oldest
		FROM seam_instant_key_request r
		WHERE s.status = 'pending' AND r.status = 'pending' AND r.next_attempt_at IS NULL
			AND r.wake_at IS NOT NULL
			AND (r.row_task IS NOT NULL OR r.issue_at IS NULL OR r.issue_at <= now())) l
	LEFT JOIN LATERAL (SELECT r.error
		FROM seam_instant_key_request r
		WHERE r.status = s.status AND r.error IS NOT NULL
		ORDER BY r.attempted_at DESC NULLS LAST LIMIT 1) e ON true;
COMMENT ON VIEW seam_instant_key_queue IS
	'the outbox at a glance: a row for each status, with its count, the age of its oldest request (since it was enqueued, or due, or finished), and its last error';

CREATE FUNCTION seam_enqueue_instant_key(user_identity_id uuid, max_use_count int DEFAULT 1, customization_profile_id uuid DEFAULT NULL, reference text DEFAULT NULL, issue_at timestamptz DEFAULT NULL, valid_until timestamptz DEFAULT NULL, seam_workspace uuid DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'seam_enqueue_instant_key'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_enqueue_instant_key(uuid, int, uuid, text, timestamptz, timestamptz, uuid) IS
	'have an instant key issued after this transaction commits, or at issue_at, and renewed and revoked as a stay until valid_until needs it: returns the id of the request';

CREATE FUNCTION seam_instant_key_request_result(request_id bigint)
RETURNS seam_instant_key
AS 'MODULE_PATHNAME', 'seam_instant_key_request_result'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_instant_key_request_result(bigint) IS
	'the instant key of a request that the caller enqueued, or NULL while there is none';

CREATE FUNCTION seam_cancel_instant_key_request(request_id bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'seam_cancel_instant_key_request'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_cancel_instant_key_request(bigint) IS
	'cancel a request, have its key revoked, or take what is reported off the view seam_instant_key_orphan: returns the new status';

CREATE FUNCTION seam_retry_instant_key_request(request_id bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'seam_retry_instant_key_request'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_retry_instant_key_request(bigint) IS
	'put a failed request back, or have its issued key written to its row again: returns the new status';

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

CREATE FUNCTION seam_adopt_instant_key_requests()
RETURNS bigint
AS 'MODULE_PATHNAME', 'seam_adopt_instant_key_requests'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION seam_adopt_instant_key_requests() IS
	'take over the unfinished requests that came along with a copy of the database, and report its calls that were open: returns their number';

CREATE FUNCTION seam_keep_instant_key_trigger()
RETURNS trigger
AS 'MODULE_PATHNAME', 'seam_keep_instant_key_trigger'
LANGUAGE C;
COMMENT ON FUNCTION seam_keep_instant_key_trigger() IS
	'AFTER INSERT OR UPDATE OR DELETE trigger FOR EACH ROW that keeps the instant key of the row''s stay: issued, renewed and revoked after commits, as the row says; arguments are field=column pairs';

-- ---------- what goes on ----------

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
REVOKE ALL ON TABLE seam_instant_key_request FROM PUBLIC;
REVOKE ALL ON TABLE seam_instant_key_call FROM PUBLIC;
REVOKE ALL ON TABLE seam_instant_key_writing FROM PUBLIC;
REVOKE ALL ON TABLE seam_instant_key_queue FROM PUBLIC;
REVOKE ALL ON TABLE seam_instant_key_orphan FROM PUBLIC;
GRANT SELECT ON TABLE seam_instant_key_queue TO pg_monitor;
GRANT SELECT ON TABLE seam_instant_key_orphan TO pg_monitor;
REVOKE ALL ON FUNCTION seam_enqueue_instant_key(uuid, int, uuid, text, timestamptz, timestamptz, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_instant_key_request_result(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_cancel_instant_key_request(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_retry_instant_key_request(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_cancel_instant_key_requests(text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_retry_instant_key_requests(text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_unowned_instant_keys(uuid) FROM PUBLIC;
REVOKE ALL ON TABLE seam_ik_paused FROM PUBLIC;
GRANT SELECT ON TABLE seam_ik_paused TO pg_monitor;
REVOKE ALL ON FUNCTION seam_ik_pause(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_ik_resume() FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_adopt_instant_key_requests() FROM PUBLIC;
REVOKE ALL ON FUNCTION seam_keep_instant_key_trigger() FROM PUBLIC;
