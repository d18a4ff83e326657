/*
 * xact_block.c
 *	  The leader's transactions: one pair of functions opens and closes them all.
 *
 * A block sets the statement's time, starts a transaction, pushes a snapshot and
 * says in pg_stat_activity what it does; the end undoes all of it and reports
 * table statistics, without which autovacuum would never come by.
 * Whoever waits for the network must be outside of any block.
 */
#include "postgres.h"

#include "access/xact.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "xact_block.h"

/*
 * Begin a transaction of the leader; `doing` is what pg_stat_activity shows. The
 * caller's memory context stays current, so that what is read inside the block
 * outlives it.
 */
void
xact_begin(const char *doing)
{
	MemoryContext context = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, doing);
	MemoryContextSwitchTo(context);
}

/*
 * Commit, flushed to disk whatever the site's default is: what the leader
 * records is a promise about pods. The caller's memory context stays current.
 */
void
xact_commit(void)
{
	MemoryContext context = CurrentMemoryContext;

	ForceSyncCommit();
	PopActiveSnapshot();
	CommitTransactionCommand();
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
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}
