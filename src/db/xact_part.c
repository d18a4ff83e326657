/*
 * db/xact_part.c
 *	  A part of a transaction that may fail by itself: the one place that opens a subtransaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "db/xact_part.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/*
 * Run work in a subtransaction of its own, which has ended when this returns or raises. Returns
 * NULL when the work came to its end: locks that it took stay. Returns the error where it failed,
 * and only its work is undone. The error is allocated in the current memory context.
 */
ErrorData *
xact_part(void (*work)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* Work that waits for each lock for so long at most. */
typedef struct Within
{
	int64 ms;
	void (*work)(void *arg);
	void *arg;
} Within;

static void
within(void *arg)
{
	const Within *part = arg;
	int level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", psprintf(INT64_FORMAT, part->ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	part->work(part->arg);
	AtEOXact_GUC(true, level);
}

/*
 * The same, waiting for each lock for some milliseconds at most, or for lock_timeout if that is
 * less. False where that was too long, or the wait was a deadlock. Any other error is raised.
 */
bool
xact_part_within(int64 ms, void (*work)(void *arg), void *arg)
{
	Within part = { .ms = LockTimeout > 0 ? Min(ms, LockTimeout) : ms, .work = work, .arg = arg };
	ErrorData *error = xact_part(within, &part);

	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	return error == NULL;
}
