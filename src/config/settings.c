/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings (GUCs) of seam_ik, the way to the API key, and what is left
 *	  out of the server log.
 *
 * The API key is a secret, and so is whatever can send it elsewhere: endpoint,
 * CA file and key file are for the superuser, or for a role that was granted SET.  No
 * message made here shows a value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type.h"
#include "base/compat.h"
#include "net/url.h"
#include "miscadmin.h"
#include "base/uuid.h"
#include "config/settings.h"
#include "storage/fd.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

/* What SHOW answers in place of the API key. */
#define API_KEY_MASK "********"

/* The longest API key: a console session's JWT has about a kilobyte. */
#define MAX_API_KEY 8192

/* Lengths of a list's text are ints. */
#define MAX_LIST_KILOBYTES (1024 * 1024 - 1)

#define HINT_USE_KEY_FILE \
	"Put the key into a file of the server's user with mode 0600, name it in " \
	"seam_ik.api_key_file, and replace the key at Seam: others may have read it."

int			settings_connect_timeout = 5000;
int			settings_request_timeout = 30000;
int			settings_max_retries = 2;
int			settings_max_concurrency = 16;
int			settings_progress_interval = 5000;
int			settings_max_list_size = 64 * 1024;
bool		settings_worker = true;
int			settings_rate_limit = 0;
int			settings_max_attempts = 12;
bool		settings_notify = true;
bool		settings_keep_attempts = true;
int			settings_renew_before = 6 * SECS_PER_HOUR;
int			settings_retention = 30 * SECS_PER_DAY;
int			settings_settle_delay = 30000;
bool		settings_revoke_on_rollback = true;

static char *api_key;
static char *api_key_file;
static char *endpoint;
static char *workspace_id;
static char *ca_file;

/*
 * Loaded by shared_preload_libraries?  Without, a key in postgresql.conf is a
 * placeholder in each new session that any role can SHOW.
 */
static bool preloaded;
static bool key_in_unprotected_file;

/*
 * True while the settings are defined.  An error would then break the loading
 * of the library, so a bad value is refused with a warning instead.
 */
static bool defining;

/*
 * When the statement began (or the statements that came with it) that holds a
 * secret, whatever its text says; 0: there was none in this session.
 */
static TimestampTz secret_statement;

static emit_log_hook_type next_emit_log;

static bool sets_ours(const Node *stmt);

/*
 * Keep the statement that is being executed out of the server log, whatever
 * error comes of it, now or later.
 */
static void
hide_statement(void)
{
	secret_statement = GetCurrentStatementStartTimestamp();
}

/*
 * The same; and until the caller puts the error context stack back, which is
 * returned, no error has the context from outside, which may quote the
 * statement.  (Whoever catches an error restores the stack, too.)
 */
ErrorContextCallback *
settings_hide_statement(void)
{
	ErrorContextCallback *outer = error_context_stack;

	hide_statement();
	error_context_stack = NULL;
	return outer;
}

/*
 * May a statement, or what is said of one, quote an API key or the URL of a
 * key?  So it may when it names a setting of ours, misspelt or not, or the
 * function that takes a URL.
 */
static bool
names_secret(const char *text)
{
	static const char setting[] = "seam_ik";
	static const char function[] = "seam_get_instant_key";

	for (; *text; text++)
	{
		if (pg_strncasecmp(text, function, sizeof(function) - 1) == 0)
			return true;
		if (pg_strncasecmp(text, setting, sizeof(setting) - 1) == 0)
		{
			const char *rest = text + sizeof(setting) - 1;

			if (rest[strspn(rest, "\" \t\r\n")] == '.')
				return true;
		}
	}
	return false;
}

/*
 * Was a secret seen in the statement that is being executed, whatever its text says?
 */
static bool
secret_was_seen(void)
{
	return secret_statement != 0 && secret_statement == GetCurrentStatementStartTimestamp();
}

/*
 * May the statement of which something is about to be logged hold a secret?
 */
static bool
statement_may_hold_secret(const ErrorData *edata)
{
	if (debug_query_string == NULL)
		return false;
	if (secret_was_seen())
		return true;

	/* refused before we see it, by a way that may name nothing: EXECUTE, say */
	if (edata->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && edata->message &&
		names_secret(edata->message))
		return true;
	return names_secret(debug_query_string);
}

/*
 * Does a context show the values of a statement's parameters ("$1 = '...'"), as it does
 * with log_parameter_max_length_on_error?
 */
static bool
shows_parameters(const char *context)
{
	while ((context = strchr(context, '$')) != NULL)
	{
		size_t		digits = strspn(++context, "0123456789");

		if (digits > 0 && strncmp(context + digits, " = ", 3) == 0)
			return true;
	}
	return false;
}

/*
 * emit_log_hook: leave out of the server log what may quote a secret.
 *
 * PostgreSQL logs the text of a statement that fails, be it before any of our
 * code sees it (a syntax error), in it, or afterwards: in another statement of
 * the same query string, or when the function has returned.  Its context may quote
 * the same secret without a word that tells: in the arguments of a function that
 * calls ours, or as the value of a parameter.  The flags are of the log only; the
 * internal query is lost to the client, too.
 */
static void
hide_secrets(ErrorData *edata)
{
	bool		seen = debug_query_string != NULL && secret_was_seen();
	bool		held = statement_may_hold_secret(edata);

	if (held)
		edata->hide_stmt = true;
	if (edata->context &&
		(seen || names_secret(edata->context) || (held && shows_parameters(edata->context))))
		edata->hide_ctx = true;
	if (edata->internalquery && (seen || names_secret(edata->internalquery)))
		edata->internalquery = NULL;
	if (next_emit_log)
		next_emit_log(edata);
}

/*
 * Does a check hook see a value that comes from a statement of this session?
 */
static bool
is_from_statement(GucSource source)
{
	return source >= PGC_S_INTERACTIVE && !defining;
}

/*
 * Refuse a value from a check hook with 22023: "NAME PROBLEM".
 *
 * PostgreSQL would quote the value, and a PL/pgSQL function would show it as
 * context; so the error is raised here, without context, if the value comes from
 * a statement, which may call set_config().  Otherwise the hook reports false in
 * the usual way.
 */
static bool
refuse(GucSource source, const char *name, const char *problem)
{
	if (is_from_statement(source))
	{
		(void) settings_hide_statement();
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s", name, problem)));
	}
	GUC_check_errcode(ERRCODE_INVALID_PARAMETER_VALUE);
	GUC_check_errmsg("%s %s", name, problem);
	return false;
}

/*
 * Is all of the text printable ASCII without spaces?  Only that may be in a
 * header's value; white space at its ends would be lost, CR and LF would start
 * another header.
 */
static bool
is_header_word(const char *text)
{
	for (; *text; text++)
	{
		if (*text <= ' ' || *text >= 0x7f)
			return false;
	}
	return true;
}

/*
 * Check hook of seam_ik.api_key.
 */
static bool
check_api_key(char **newval, void **extra, GucSource source)
{
	const char *value = *newval ? *newval : "";

	if (is_from_statement(source))
		hide_statement();
	if (strcmp(value, API_KEY_MASK) == 0)
		return refuse(source, "seam_ik.api_key", "cannot be set to the mask that is shown in its "
					  "place");
	if (!is_header_word(value))
		return refuse(source, "seam_ik.api_key", "must not contain white space, control or "
					  "non-ASCII characters");
	if (strlen(value) > MAX_API_KEY)
		return refuse(source, "seam_ik.api_key", "is too long");
	if (value[0] != '\0' && !preloaded && source > PGC_S_DYNAMIC_DEFAULT && source <= PGC_S_GLOBAL)
		key_in_unprotected_file = true;
	return true;
}

/*
 * Show hook of seam_ik.api_key: whether there is one, and not which.
 */
static const char *
show_api_key(void)
{
	return api_key && api_key[0] ? API_KEY_MASK : "";
}

/*
 * Check hook of seam_ik.workspace_id.
 */
static bool
check_workspace_id(char **newval, void **extra, GucSource source)
{
	if (*newval && !is_header_word(*newval))
		return refuse(source, "seam_ik.workspace_id", "must not contain white space, control or "
					  "non-ASCII characters");
	return true;
}

/*
 * Check hook of seam_ik.endpoint.
 */
static bool
check_endpoint(char **newval, void **extra, GucSource source)
{
	const char *problem = url_problem(*newval ? *newval : "");

	return problem ? refuse(source, "seam_ik.endpoint", problem) : true;
}

/*
 * Does a clause of CREATE or ALTER FUNCTION set one of our settings?
 */
static bool
clause_sets_ours(List *clauses)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		const DefElem *clause = lfirst(lc);

		if (clause->arg && IsA(clause->arg, VariableSetStmt) && sets_ours(clause->arg))
			return true;
	}
	return false;
}

/*
 * Does the statement set one of our settings (or a misspelt one)?
 */
static bool
sets_ours(const Node *stmt)
{
	const VariableSetStmt *set = NULL;

	if (IsA(stmt, VariableSetStmt))
		set = (const VariableSetStmt *) stmt;
	else if (IsA(stmt, AlterSystemStmt))
		set = ((const AlterSystemStmt *) stmt)->setstmt;
	else if (IsA(stmt, AlterRoleSetStmt))
		set = ((const AlterRoleSetStmt *) stmt)->setstmt;
	else if (IsA(stmt, AlterDatabaseSetStmt))
		set = ((const AlterDatabaseSetStmt *) stmt)->setstmt;
	else if (IsA(stmt, CreateFunctionStmt))
		return clause_sets_ours(((const CreateFunctionStmt *) stmt)->options);
	else if (IsA(stmt, AlterFunctionStmt))
		return clause_sets_ours(((const AlterFunctionStmt *) stmt)->actions);
	return set && set->name && pg_strncasecmp(set->name, "seam_ik.", 8) == 0;
}

/*
 * A utility command begins: a SET of ours, in a function say, that fails for whatever
 * reason must not show its value, be it only to the client.  Returns the error context
 * to which the caller goes back when the command has ended.
 */
ErrorContextCallback *
settings_utility_begins(const Node *stmt)
{
	return sets_ours(stmt) ? settings_hide_statement() : error_context_stack;
}

/*
 * Define the settings.  Called once, from _PG_init.  Long, because it is a table of
 * calls, one for each setting.
 */
void
settings_define(void)
{
	preloaded = process_shared_preload_libraries_in_progress;
	defining = true;

	DefineCustomStringVariable("seam_ik.api_key",
							   "API key, personal access token or console session of Seam.",
							   "Prefer seam_ik.api_key_file: what sets this stays in logs and "
							   "views.",
							   &api_key, "",
							   PGC_SUSET,
							   GUC_SUPERUSER_ONLY | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   check_api_key, NULL, show_api_key);
	DefineCustomStringVariable("seam_ik.api_key_file",
							   "File that holds the API key, used when seam_ik.api_key is empty.",
							   "A regular file of the server's user with mode 0600, or of root "
							   "with 0640. Read at each use. A relative path starts in the data "
							   "directory.",
							   &api_key_file, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("seam_ik.endpoint",
							   "URL of Seam's API.",
							   "https, or http to a loopback host.",
							   &endpoint, "https://connect.getseam.com",
							   PGC_SUSET, 0,
							   check_endpoint, NULL, NULL);
	DefineCustomStringVariable("seam_ik.workspace_id",
							   "Workspace at Seam; personal access tokens and console sessions "
							   "need it.",
							   NULL,
							   &workspace_id, "",
							   PGC_SUSET, 0,
							   check_workspace_id, NULL, NULL);
	DefineCustomStringVariable("seam_ik.ca_file",
							   "File of CA certificates to trust in place of the system's.",
							   NULL,
							   &ca_file, "",
							   PGC_SUSET, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.connect_timeout",
							"Time to connect to Seam, name resolution and TLS included.",
							NULL,
							&settings_connect_timeout, 5000, 1, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.request_timeout",
							"Time for a whole call, its retries included.",
							NULL,
							&settings_request_timeout, 30000, 1, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.max_retries",
							"How often a request that was surely not processed is tried again.",
							NULL,
							&settings_max_retries, 2, 0, 10,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.max_concurrency",
							"Requests of a batch that are under way at once.",
							NULL,
							&settings_max_concurrency, 16, 1, 1000,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.progress_interval",
							"Time between notices of how far a batch is; 0 turns them off.",
							NULL,
							&settings_progress_interval, 5000, 0, 3600 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.max_list_size",
							"Largest answer with a list of instant keys that is read.",
							NULL,
							&settings_max_list_size, 64 * 1024, 1, MAX_LIST_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("seam_ik.worker",
							 "Whether the worker of the outbox sends anything.",
							 "While it is off, requests wait.",
							 &settings_worker, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.rate_limit",
							"Requests a second that the worker of a database sends at most; 0 for "
							"no limit.",
							NULL,
							&settings_rate_limit, 0, 0, 1000000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.max_attempts",
							"How often a request of the outbox is tried before it fails.",
							NULL,
							&settings_max_attempts, 12, 1, 1000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.renew_before",
							"How long before it expires the instant key of a stay that lasts "
							"longer is renewed.",
							"Not before half of its life has passed.",
							&settings_renew_before, 6 * SECS_PER_HOUR, 0, 365 * SECS_PER_DAY,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.retention",
							"How long finished requests of the outbox are kept; -1 for ever.",
							NULL,
							&settings_retention, 30 * SECS_PER_DAY, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("seam_ik.notify",
							 "Whether the ends of requests of the outbox are told of by NOTIFY.",
							 NULL,
							 &settings_notify, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("seam_ik.keep_attempts",
							 "Whether each try of a request of the outbox is kept.",
							 NULL,
							 &settings_keep_attempts, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("seam_ik.settle_delay",
							"Time after a lost answer before Seam is asked whether there is an "
							"instant key.",
							"At least the request_timeout of the attempt passes.",
							&settings_settle_delay, 30000, 0, 24 * 3600 * 1000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("seam_ik.revoke_on_rollback",
							 "Whether keys are revoked whose transaction rolls back.",
							 "Needs seam_ik in shared_preload_libraries.",
							 &settings_revoke_on_rollback, true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved("seam_ik");

	defining = false;

	next_emit_log = emit_log_hook;
	emit_log_hook = hide_secrets;
}

/*
 * Is there an ALTER ROLE or ALTER DATABASE SET of this parameter, with a value that
 * is not empty?
 */
static bool
set_in_catalog(const char *name)
{
	size_t		len = strlen(name);
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		config = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
										  RelationGetDescr(rel), &isnull);
		Datum	   *elements;
		int			n;

		if (isnull)
			continue;
		deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false,
						  TYPALIGN_INT, &elements, NULL, &n);
		for (int i = 0; i < n && !found; i++)
		{
			const char *setting = TextDatumGetCString(elements[i]);

			found = pg_strncasecmp(setting, name, len) == 0 &&
				setting[len] == '=' && setting[len + 1] != '\0';
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Does every session load the library before it executes anything?  (No role may
 * choose its own session_preload_libraries.)
 */
static bool
loaded_by_each_session(void)
{
	return strstr(session_preload_libraries_string, "seam_ik") != NULL &&
		!set_in_catalog("session_preload_libraries");
}

/*
 * Warn, once a session, of an API key that other roles can read.
 */
static void
warn_of_exposed_key(void)
{
	static bool warned = false;

	if (warned)
		return;
	warned = true;
	if (key_in_unprotected_file && !loaded_by_each_session())
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("every role can read seam_ik.api_key"),
				 errdetail("It is set in the server's configuration, but seam_ik is not in "
						   "shared_preload_libraries: until the library is loaded, any session can "
						   "SHOW it."),
				 errhint(HINT_USE_KEY_FILE " Or add seam_ik to shared_preload_libraries.")));
	/* every role can read pg_db_role_setting */
	if (set_in_catalog("seam_ik.api_key"))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("every role can read seam_ik.api_key"),
				 errdetail("It is set by ALTER ROLE or ALTER DATABASE, and every role can read "
						   "pg_db_role_setting."),
				 errhint(HINT_USE_KEY_FILE " Then RESET it there.")));
}

pg_noreturn static void bad_key_file(int fd, const char *problem);

/*
 * Raise that the key file is not fit to hold a key.
 */
static void
bad_key_file(int fd, const char *problem)
{
	CloseTransientFile(fd);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("the file that seam_ik.api_key_file names %s", problem),
			 errhint("It must be a regular file that holds the API key and nothing else, of the "
					 "server's user with mode 0600, or of root with mode 0640.")));
}

/*
 * The key file as it was when it was read, and the key in it (malloc'd).  A
 * look at the file is all that a call takes while it stays the same.
 */
static struct
{
	char	   *name;			/* NULL: nothing is remembered */
	struct stat st;				/* what the file was */
	char	   *key;			/* what was in it */
}			read_before;

/*
 * Forget the key.
 */
static void
forget_key(void)
{
	if (read_before.key)
		explicit_bzero(read_before.key, strlen(read_before.key));
	free(read_before.key);
	free(read_before.name);
	read_before.key = read_before.name = NULL;
}

/*
 * Remember the key, if a later change of the file is sure to show: its times
 * are as fine as the kernel's clock ticks, so it must have rested for a while.
 */
static void
remember_key(const struct stat *st, const char *key)
{
	forget_key();
	if (time(NULL) - Max(st->st_mtime, st->st_ctime) < 2)
		return;
	read_before.st = *st;
	read_before.name = strdup(api_key_file);
	read_before.key = strdup(key);
	if (read_before.name == NULL || read_before.key == NULL)
		forget_key();
}

/*
 * Is the file the one that was read, and unchanged?
 */
static bool
key_file_unchanged(void)
{
	const struct stat *old = &read_before.st;
	struct stat st;

	return read_before.name && strcmp(read_before.name, api_key_file) == 0 &&
		stat(api_key_file, &st) == 0 &&
		st.st_dev == old->st_dev && st.st_ino == old->st_ino &&
		st.st_size == old->st_size &&
		st.st_mode == old->st_mode && st.st_uid == old->st_uid &&
		memcmp(&st.st_mtim, &old->st_mtim, sizeof(st.st_mtim)) == 0 &&
		memcmp(&st.st_ctim, &old->st_ctim, sizeof(st.st_ctim)) == 0;
}

/*
 * The API key in the file that seam_ik.api_key_file names: good until the next
 * call of this function.
 *
 * The rule of ownership and mode is ssl_key_file's (check_ssl_key_file_permissions()
 * in PostgreSQL).  It is checked on the open file, so that the file that was
 * checked is the file that is read; O_NONBLOCK keeps a FIFO from blocking the
 * open.
 */
static const char *
read_key_file(void)
{
	char	   *key;
	struct stat st;
	ssize_t		len;
	int			fd;

	if (key_file_unchanged())
		return read_before.key;
	key = palloc(MAX_API_KEY + 2);
	fd = OpenTransientFile(api_key_file, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
	{
		bool		missing = errno == ENOENT || errno == ENOTDIR;

		ereport(ERROR,
				(errcode(missing ? ERRCODE_UNDEFINED_FILE : ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("could not open the file that seam_ik.api_key_file names: %m"),
				 errhint("Create it with mode 0600 for the server's user, or correct "
						 "seam_ik.api_key_file.")));
	}
	if (fstat(fd, &st) != 0)
		bad_key_file(fd, "could not be examined");
	if (!S_ISREG(st.st_mode))
		bad_key_file(fd, "is not a regular file");
	if (st.st_uid != geteuid() && st.st_uid != 0)
		bad_key_file(fd, "belongs to another user");
	if ((st.st_uid == geteuid() && (st.st_mode & (S_IRWXG | S_IRWXO))) ||
		(st.st_uid != geteuid() && (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))))
		bad_key_file(fd, "can be read by other users");
	len = read(fd, key, MAX_API_KEY + 2);
	if (len < 0)
		bad_key_file(fd, "could not be read");
	if (len > MAX_API_KEY + 1)
		bad_key_file(fd, "is too large");

	/* an editor ends the line */
	while (len > 0 && (key[len - 1] == '\n' || key[len - 1] == '\r'))
		len--;
	key[len] = '\0';
	if ((ssize_t) strlen(key) != len || !is_header_word(key))
		bad_key_file(fd, "contains white space, control or non-ASCII characters");
	if (strcmp(key, API_KEY_MASK) == 0)
		bad_key_file(fd, "contains the mask that is shown in place of a key");
	CloseTransientFile(fd);
	remember_key(&st, key);
	return key;
}

/*
 * Who calls, and where, by the current settings.  Strings are the settings' own
 * or palloc'd, so they are good for this call of a function.
 *
 * Raises that there is no key (55000), that the key file is missing (58P01) or
 * unfit (F0000), or that the key is of a kind that may not call (28000).
 * Must be called in a transaction.
 */
void
settings_account(SeamAccount *account)
{
	const char *problem;
	size_t		len = strlen(endpoint);

	warn_of_exposed_key();
	if (len > 0 && endpoint[len - 1] == '/')
		account->endpoint = pnstrdup(endpoint, len - 1);
	else
		account->endpoint = endpoint;
	account->workspace_id = workspace_id;
	account->ca_file = ca_file;
	account->api_key = api_key;
	if (api_key[0] == '\0' && api_key_file[0] != '\0')
		account->api_key = read_key_file();
	if (account->api_key[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no API key of Seam is set"),
				 account->api_key != api_key ? errdetail("The file that seam_ik.api_key_file names "
														 "is empty.") : 0,
				 errhint("Put it into a file that only the server's user can read (mode 0600), and "
						 "name that file in seam_ik.api_key_file.")));
	problem = seam_api_key_problem(account->api_key, account->workspace_id);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("%s", problem),
				 errhint("Set seam_ik.workspace_id for a personal access token or a console "
						 "session; otherwise create an API key in Seam's console.")));
}

/*
 * Has the account's requests made in this workspace; its name is palloc'd.
 *
 * Raises 22023 where the API key is of one workspace by itself.
 */
void
settings_choose_workspace(SeamAccount *account, const pg_uuid_t *workspace)
{
	char	   *text;

	if (!seam_chooses_workspace(account->api_key))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("seam_workspace needs a personal access token"),
				 errdetail("The API key is of one workspace."),
				 errhint("Leave seam_workspace out, or give a personal access token of Seam.")));
	text = palloc(UUID_TEXT_LEN + 1);
	uuid_write(text, workspace);
	account->workspace_id = text;
}

/*
 * Returns where the API key is, and who may read it there, palloc'd; the key is read by
 * settings_account() without an error.  *hint: what to do where every role can read it,
 * static, or NULL.
 */
char *
settings_api_key_place(const char **hint)
{
	struct stat st;

	*hint = NULL;
	if (api_key[0] != '\0' && (set_in_catalog("seam_ik.api_key") ||
							   (key_in_unprotected_file && !loaded_by_each_session())))
	{
		*hint = HINT_USE_KEY_FILE;
		return pstrdup("in seam_ik.api_key, where every role can read it");
	}
	if (api_key[0] != '\0')
		return pstrdup("in seam_ik.api_key: whoever reads the configuration, or the log of what "
					   "set it, can read it");
	if (stat(api_key_file, &st) != 0)
		return pstrdup("in the file that seam_ik.api_key_file names");
	return psprintf("in the file that seam_ik.api_key_file names, of %s, mode %04o",
					st.st_uid == geteuid() ? "the server's user" : "root",
					(unsigned int) (st.st_mode & 07777));
}
