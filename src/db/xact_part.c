/*
 * db/xact_part.c
 *	  A part of a transaction that may fail by itself: the one place that opens a subtransaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "db/xact_part.h"
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
