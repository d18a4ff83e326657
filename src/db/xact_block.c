/*
 * db/xact_block.c
 *	  The leader's transactions: one pair of functions opens and closes them all.
 *
 * A block sets the statement's time, starts a transaction, pushes a snapshot and
 * says in pg_stat_activity what it does; the end undoes all of it and reports
 * table statistics, without which autovacuum would never come by.
 * Whoever waits for the network must be outside of any block.
 *
 * The leader has logged in as nobody, which the server takes for a superuser. A block that
 * does anything with our tables goes on as the extension's owner, so that what hangs on the
 * tables, such as a trigger, has the owner's rights and not more.
 *
 * A commit is a promise about pods: what it announces is called for when it returns. It
 * therefore returns only when it is flushed and, where synchronous standbys are
 * configured, confirmed by them. A cancel request acts inside a block alone and not on
 * its commit; a leader that is told to end while it waits for a standby ends there.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "db/xact_block.h"

/* Who the process is outside of blocks. */
static Oid own_user = InvalidOid;
static int own_context = 0;

static void
be_own_user(void)
{
	SetUserIdAndSecContext(own_user, own_context);
}

/*
 * Begin a transaction of the leader; `doing` is what pg_stat_activity shows. The
 * caller's memory context stays current, so that what is read inside the block
 * outlives it.
 */
void
xact_begin(const char *doing)
{
	MemoryContext context = CurrentMemoryContext;

	pqsignal(SIGINT, StatementCancelHandler);
	GetUserIdAndSecContext(&own_user, &own_context);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, doing);
	MemoryContextSwitchTo(context);
}

/*
 * Go on as a role until the block ends. Nothing that runs in the block can become another
 * user or leave anything in the session, such as a temporary table.
 */
void
xact_work_as(Oid role)
{
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

/*
 * Commit, flushed to disk and to the synchronous standbys, whatever the site's default
 * is. The server would give the wait for a standby up on a cancel request, with a warning
 * alone; here such requests are dropped. Does not return where the process was told to
 * end during that wait. The caller's memory context stays current.
 */
void
xact_commit(void)
{
	MemoryContext context = CurrentMemoryContext;

	pqsignal(SIGINT, SIG_IGN);
	QueryCancelPending = false;
	ForceSyncCommit();
	PopActiveSnapshot();
	CommitTransactionCommand();
	be_own_user();
	CHECK_FOR_INTERRUPTS();
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Undo everything after an error has been caught and copied. */
void
xact_abort(void)
{
	MemoryContext context = CurrentMemoryContext;

	AbortCurrentTransaction();
	be_own_user();
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}
