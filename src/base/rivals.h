/*
 * base/rivals.h
 *	  Who registers over living sessions.
 */
#ifndef GPU_ORCH_RIVALS_H
#define GPU_ORCH_RIVALS_H

#include "c.h"
#include "datatype/timestamp.h"

#define RIVALS 64
#define RIVAL_NAME 208

/* A worker whose living session another process ended, or wanted to end. */
typedef struct Rival
{
	Oid database; /* InvalidOid: a free place */
	int64 worker; /* its number and its age: numbers return after a failover that lost commits */
	TimestampTz created_at;
	char name[RIVAL_NAME];
	TimestampTz taken_at; /* of the last take-over that was let through */
	int taken;
	TimestampTz refused_at; /* 0: never */
} Rival;

typedef enum RivalVerdict
{
	RIVAL_FIRST, /* go on: as a container that started again would */
	RIVAL_AGAIN, /* go on; but this is no restart any more */
	RIVAL_REFUSED
} RivalVerdict;

extern RivalVerdict rivals_take_over(int64 worker, TimestampTz created_at, const char *name,
									 TimestampTz now);
extern int rivals_refused(TimestampTz since, Rival **refused);

#endif
