/*-------------------------------------------------------------------------
 *
 * worker_db.c
 *		Connections of gpu-orch-worker and the one way to make a call.
 *
 * Every call is a single statement in a transaction of its own, with bound
 * parameters and no session state, so that it works behind a pooler that gives
 * each transaction another session.  No token ever stands in query text or in
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
 * Connect if not connected; one attempt, bounded by connect_timeout.  False,
 * with a line in the log, when it fails.
 */
bool
db_connect(DbConn *conn)
{
	char name[128];
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
								   NULL };

	if (conn->pg != NULL && PQstatus(conn->pg) == CONNECTION_OK)
		return true;
	db_close(conn);

	snprintf(name, sizeof(name), PROGRAM_NAME " %s", worker.opt.worker_id);
	conn->pg = PQconnectdbParams(keywords, values, 1);
	PQsetNoticeProcessor(conn->pg, db_notice, (void *) conn->purpose);
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
	if (strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 ||
		strncmp(sqlstate, "54", 2) == 0 || strcmp(sqlstate, "GO002") == 0)
		return DB_INVALID;
	return DB_NO_ANSWER;
}

/*
 * Write a failed call's error to the log: the message and the hint alone,
 * since a context may quote the parameters.
 */
static void
db_log_error(const DbConn *conn, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	if (sqlstate == NULL)
		log_line("call failed (%s): %s", conn->purpose, PQresultErrorMessage(result));
	else
		log_line("call failed (%s): %s: %s%s%s", conn->purpose, sqlstate,
				 PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
				 hint != NULL ? "; hint: " : "", hint != NULL ? hint : "");
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
	PGresult *next;

	*result = NULL;
	if (!db_connect(conn))
		return DB_NO_ANSWER;

	if (!PQsendQueryParams(conn->pg, sql, nparams, NULL, params, NULL, NULL, 0) ||
		!db_wait(conn->pg))
	{
		const char *message = PQerrorMessage(conn->pg);

		log_line("no answer (%s): %s", conn->purpose,
				 *message != '\0' ? message : "the time limit has passed");
		db_close(conn);
		return DB_NO_ANSWER;
	}

	/* a query sent by PQsendQueryParams has one result */
	*result = PQgetResult(conn->pg);
	while ((next = PQgetResult(conn->pg)) != NULL)
		PQclear(next);

	if (PQresultStatus(*result) == PGRES_TUPLES_OK || PQresultStatus(*result) == PGRES_COMMAND_OK)
		return DB_OK;

	db_log_error(conn, *result);
	status = db_classify(PQresultErrorField(*result, PG_DIAG_SQLSTATE));
	PQclear(*result);
	*result = NULL;
	if (PQstatus(conn->pg) != CONNECTION_OK)
		db_close(conn);
	return status;
}
