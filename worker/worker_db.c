/*-------------------------------------------------------------------------
 *
 * worker_db.c
 *		Connections of gpu-orch-worker and the one way to make a call.
 *
 * Every call is a single statement in a transaction of its own, with bound
 * parameters and no session state, so that it works behind a pooler that gives
 * each transaction another session.  What a role or a database may set as the
 * defaults of its sessions (an isolation level, read-only, time limits, a
 * search_path) does not reach a call.  No token ever stands in query text or in
 * the log.  Must not know what the calls mean, beyond their SQLSTATE.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

/*
 * What our sessions set for themselves when they begin.  Whoever has the role's
 * password may ALTER ROLE ... SET all of these, and would stop every worker
 * with one line.
 */
#define SESSION_SETTINGS \
	" -c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off" \
	" -c default_transaction_deferrable=off -c search_path=pg_catalog,pg_temp" \
	" -c statement_timeout=30s -c lock_timeout=0 -c idle_in_transaction_session_timeout=1min" \
	" -c idle_session_timeout=0 -c local_preload_libraries="
#define SESSION_SETTINGS_17 " -c transaction_timeout=0"
#define VERSION_17 170000

/* The same for one transaction, where a pooler has begun the session. */
#define TRANSACTION_BEGIN "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"
#define TRANSACTION_SETTINGS \
	"SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)," \
	" pg_catalog.set_config('statement_timeout', '30s', true)," \
	" pg_catalog.set_config('lock_timeout', '0', true)"

/* Learned from the first connection. */
static _Atomic bool pooled = false; /* it takes no settings at the start of a session */
static _Atomic bool since_17 = false;

/*
 * Is this a connection string that libpq can read?  libpq's own message is not
 * shown, because it may quote a password.
 */
bool
db_dsn_valid(const char *dsn)
{
	char *message = NULL;
	PQconninfoOption *options = PQconninfoParse(dsn, &message);

	PQfreemem(message);
	PQconninfoFree(options);
	return options != NULL;
}

/*
 * The server's notices and warnings go to our log.
 */
static void
db_notice(void *purpose, const char *message)
{
	log_line("notice (%s): %s", (const char *) purpose, message);
}

/*
 * The options that a session begins with: those of the connection string or the
 * environment, and ours, which win.  Malloc'd; NULL where none are taken.
 */
static char *
db_options(void)
{
	PQconninfoOption *given = worker.opt.dsn != NULL ? PQconninfoParse(worker.opt.dsn, NULL) : NULL;
	const char *theirs = getenv("PGOPTIONS");
	PQconninfoOption *option;
	char *options;

	if (pooled)
	{
		PQconninfoFree(given);
		return NULL;
	}
	for (option = given; option != NULL && option->keyword != NULL; option++)
		if (strcmp(option->keyword, "options") == 0 && option->val != NULL)
			theirs = option->val;
	options = format_text("%s%s%s", theirs != NULL ? theirs : "", SESSION_SETTINGS,
						  since_17 ? SESSION_SETTINGS_17 : "");
	PQconninfoFree(given);
	return options;
}

/*
 * Make one attempt to connect, bounded by connect_timeout.
 */
static void
db_open(DbConn *conn)
{
	char name[128];
	char *options = db_options();
	const char *timeout = getenv("PGCONNECT_TIMEOUT");

	/*
	 * What stands before dbname is a default that the DSN, expanded from
	 * dbname, may override.
	 */
	const char *const keywords[] = { "connect_timeout",
									 "keepalives_idle",
									 "keepalives_interval",
									 "keepalives_count",
									 "tcp_user_timeout",
									 "fallback_application_name",
									 "password",
									 "dbname",
									 "client_encoding",
									 "options",
									 NULL };
	const char *const values[] = { timeout != NULL ? timeout : "10",
								   "10",
								   "5",
								   "3",
								   "30000",
								   name,
								   worker.opt.password,
								   worker.opt.dsn,
								   "UTF8",
								   options,
								   NULL };

	snprintf(name, sizeof(name), PROGRAM_NAME " %s", worker.opt.worker_id);
	conn->pg = PQconnectdbParams(keywords, values, 1);
	PQsetNoticeProcessor(conn->pg, db_notice, (void *) conn->purpose);
	free(options);
}

/*
 * Has this connection taught how the next ones should begin?  Then it is to be
 * made again.  The words are PgBouncer's, for want of a code of its own.
 */
static bool
db_learn(PGconn *pg)
{
	if (PQstatus(pg) == CONNECTION_OK)
	{
		if (pooled || since_17 || PQserverVersion(pg) < VERSION_17)
			return false;
		since_17 = true;
		return true;
	}
	if (pooled || strstr(PQerrorMessage(pg), "unsupported startup parameter") == NULL)
		return false;
	log_line("sessions begin without our settings, as behind a pooler: each call makes them");
	pooled = true;
	return true;
}

/*
 * Connect if not connected.  False, with a line in the log, when it fails.
 */
bool
db_connect(DbConn *conn)
{
	if (conn->pg != NULL && PQstatus(conn->pg) == CONNECTION_OK)
		return true;
	do
	{
		db_close(conn);
		db_open(conn);
	} while (db_learn(conn->pg));
	if (PQstatus(conn->pg) == CONNECTION_OK)
		return true;
	log_line("could not connect (%s): %s", conn->purpose, PQerrorMessage(conn->pg));
	db_close(conn);
	return false;
}

/*
 * Close the connection, if there is one.
 */
void
db_close(DbConn *conn)
{
	PQfinish(conn->pg);
	conn->pg = NULL;
}

/*
 * Wait until the sent query's result is complete; false when the connection
 * broke or CALL_TIMEOUT passed.
 */
static bool
db_wait(PGconn *pg)
{
	double limit = clock_now() + CALL_TIMEOUT;

	while (PQisBusy(pg))
	{
		struct pollfd fd = { .fd = PQsocket(pg), .events = POLLIN };
		double left = limit - clock_now();
		int ready;

		if (left <= 0)
			return false;
		ready = poll(&fd, 1, (int) (left * 1000) + 1);
		if (ready < 0 && errno != EINTR)
			return false;
		if (ready > 0 && !PQconsumeInput(pg))
			return false;
	}
	return true;
}

/*
 * The result of the next statement that was sent; NULL when there is no answer.
 */
static PGresult *
db_result(PGconn *pg)
{
	PGresult *result;
	PGresult *next;

	if (!db_wait(pg))
		return NULL;
	result = PQgetResult(pg);
	/* a query sent by PQsendQueryParams has one result, and a NULL that ends it */
	while (db_wait(pg) && (next = PQgetResult(pg)) != NULL)
		PQclear(next);
	return result;
}

static bool
db_succeeded(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

/*
 * Run a statement in a session that is ours from its start; NULL when there is
 * no answer.
 */
static PGresult *
db_run(PGconn *pg, const char *sql, int nparams, const char *const *params)
{
	if (!PQsendQueryParams(pg, sql, nparams, NULL, params, NULL, NULL, 0))
		return NULL;
	return db_result(pg);
}

/*
 * Run a statement in a transaction that makes its own settings, in one exchange;
 * NULL when there is no answer, or none that says that it was committed.
 */
static PGresult *
db_run_pooled(PGconn *pg, const char *sql, int nparams, const char *const *params)
{
	const char *const before[] = { TRANSACTION_BEGIN, TRANSACTION_SETTINGS };
	PGresult *results[4] = { NULL };
	PGresult *answer = NULL;
	PGresult *sync;
	bool sent;
	int i;

	sent = PQenterPipelineMode(pg) == 1;
	for (i = 0; sent && i < 2; i++)
		sent = PQsendQueryParams(pg, before[i], 0, NULL, NULL, NULL, NULL, 0) == 1;
	sent = sent && PQsendQueryParams(pg, sql, nparams, NULL, params, NULL, NULL, 0) == 1 &&
		PQsendQueryParams(pg, "COMMIT", 0, NULL, NULL, NULL, NULL, 0) == 1 &&
		PQpipelineSync(pg) == 1;
	for (i = 0; sent && i < 4; i++)
		sent = (results[i] = db_result(pg)) != NULL;
	if (sent && db_wait(pg))
	{
		sync = PQgetResult(pg);
		sent = PQresultStatus(sync) == PGRES_PIPELINE_SYNC && PQexitPipelineMode(pg) == 1;
		PQclear(sync);
	}
	else
		sent = false;

	/* the statement's own result, or the first error */
	for (i = 0; sent && i < 4 && answer == NULL; i++)
	{
		if (PQresultStatus(results[i]) == PGRES_FATAL_ERROR || (i == 2 && db_succeeded(results[3])))
		{
			answer = results[i];
			results[i] = NULL;
		}
	}
	for (i = 0; i < 4; i++)
		PQclear(results[i]);
	if (answer != NULL && PQtransactionStatus(pg) != PQTRANS_IDLE)
	{
		PGresult *end = db_run(pg, "ROLLBACK", 0, NULL);

		if (end == NULL)
		{
			PQclear(answer);
			answer = NULL;
		}
		PQclear(end);
	}
	return answer;
}

/*
 * What an error with this SQLSTATE means for the call.  Only errors that blame
 * the arguments are final; for all others (shutdown, no resources, a standby,
 * an extension that is just being upgraded) the same call may succeed later.
 */
static DbStatus
db_classify(const char *sqlstate)
{
	if (sqlstate == NULL)
		return DB_NO_ANSWER;
	if (strcmp(sqlstate, "42501") == 0)
		return DB_REFUSED;
	if (strcmp(sqlstate, "GO001") == 0)
		return DB_FENCED;
	if (strcmp(sqlstate, "GO007") == 0)
		return DB_IN_USE;
	if (strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 ||
		strncmp(sqlstate, "54", 2) == 0 || strcmp(sqlstate, "GO002") == 0)
		return DB_INVALID;
	return DB_NO_ANSWER;
}

/*
 * Keep a failed call's error and write it to the log: the message, the detail
 * and the hint alone, since a context may quote the parameters.
 */
static void
db_note_error(DbConn *conn, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	free(conn->error);
	if (sqlstate == NULL)
		conn->error = xstrdup(PQresultErrorMessage(result));
	else
		conn->error = format_text("%s: %s%s%s%s%s", sqlstate,
								  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
								  detail != NULL ? "; " : "", detail != NULL ? detail : "",
								  hint != NULL ? "; hint: " : "", hint != NULL ? hint : "");
	log_line("call failed (%s): %s", conn->purpose, conn->error);
}

/*
 * Make one call, connecting first if need be.  With DB_OK, *result is the
 * answer, which the caller clears; otherwise *result is NULL and the log has a
 * line.  A connection in doubt is closed, so that the next call opens another.
 */
DbStatus
db_call(DbConn *conn, const char *sql, int nparams, const char *const *params, PGresult **result)
{
	DbStatus status;

	*result = NULL;
	if (!db_connect(conn))
		return DB_NO_ANSWER;

	*result = (pooled ? db_run_pooled : db_run)(conn->pg, sql, nparams, params);
	if (*result == NULL)
	{
		const char *message = PQerrorMessage(conn->pg);

		log_line("no answer (%s): %s", conn->purpose,
				 *message != '\0' ? message : "the time limit has passed");
		db_close(conn);
		return DB_NO_ANSWER;
	}
	if (db_succeeded(*result))
		return DB_OK;

	db_note_error(conn, *result);
	status = db_classify(PQresultErrorField(*result, PG_DIAG_SQLSTATE));
	PQclear(*result);
	*result = NULL;
	if (PQstatus(conn->pg) != CONNECTION_OK)
		db_close(conn);
	return status;
}
