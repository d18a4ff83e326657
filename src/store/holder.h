/*
 * store/holder.h
 *	  Who keeps a row from others.
 */
#ifndef GPU_ORCH_STORE_HOLDER_H
#define GPU_ORCH_STORE_HOLDER_H

#include "db/spi_util.h"

/* What a row that may be kept is of, and the number that names the row. */
typedef enum KeptKind
{
	KEPT_WORKER,
	KEPT_LEASE, /* by its task */
	KEPT_POOL,
	KEPT_INSTALLATION /* 0 */
} KeptKind;

/* An open transaction that has a row. Its time is the server's, as the test clock moves no session. */
typedef struct Holder
{
	const char *row; /* which one, as alerts name it */
	bool ending;	 /* the row is a worker's that is being ended */
	int pid;		 /* 0: the transaction is prepared */
	TransactionId xid;
	TimestampTz since; /* when the transaction began, or was prepared; or now: not told */
	bool superuser;	   /* its session is a superuser's */
	bool stays;		   /* it is not ended: a superuser's, a prepared one, or it has committed */
	const char *text;  /* who that is, in words */
} Holder;

extern bool store_holder_find(KeptKind kind, int64 id, Holder *holder);
extern bool store_holder_gives(KeptKind kind, int64 id, TimestampTz until, bool ends,
							   TimestampTz now);
extern void store_holder_demand(KeptKind kind, int64 id, const char *what, bool ends,
								TimestampTz now);
extern void store_holder_demand_table(KeptKind kind, const char *what);
extern void store_holder_demand_locks(void (*work)(void *arg), void *arg, const char *what);
extern bool store_holder_try(KeptKind kind, int64 id, bool must, TimestampTz now);
extern bool store_holder_try_now(int64 worker, TimestampTz now);
extern void store_holder_note(KeptKind kind, int64 id);
extern bool store_holder_kept(int64 worker);
extern void store_holder_watch(TimestampTz now);

#endif
