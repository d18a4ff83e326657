/*
 * store/holder.h
 *	  Who keeps a worker's row from others.
 */
#ifndef GPU_ORCH_STORE_HOLDER_H
#define GPU_ORCH_STORE_HOLDER_H

#include "db/spi_util.h"

/* An open transaction that has a worker's row. Its time is the server's, as the test clock moves no session. */
typedef struct Holder
{
	const char *worker_id;
	int pid;		   /* 0: the transaction is prepared */
	TimestampTz since; /* when the transaction began, or was prepared */
	bool superuser;	   /* its session is a superuser's */
	const char *text;  /* who that is, in words */
} Holder;

extern bool store_holder_find(int64 worker, Holder *holder);
extern bool store_holder_end_overdue(const Holder *holder, TimestampTz now);
extern bool store_holder_try(int64 worker, bool must);
extern bool store_holder_kept(int64 worker);
extern void store_holder_watch(TimestampTz now);
extern bool store_holder_gives(int64 worker, TimestampTz until, bool ends, TimestampTz now);

#endif
