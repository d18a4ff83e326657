/*
 * base/provider_stats.h
 *	  How calls to the provider did, and which key they are made with, in shared memory.
 */
#ifndef GPU_ORCH_PROVIDER_STATS_H
#define GPU_ORCH_PROVIDER_STATS_H

#include "datatype/timestamp.h"

/* Kinds of calls; leader/stats.c holds them against the provider's interface. */
#define PROVIDER_CALLS 7

/* Hexadecimal digits of a key's SHA-256 that are shown. */
#define FINGERPRINT_LENGTH 8

#define FAILURE_NAME 32
#define FAILURE_TEXT 256

typedef struct ProviderCall
{
	int64 calls;	/* that were started */
	int64 failures; /* that ended without what was asked for */
	int in_flight;
	bool shut;					/* after retry_at one call goes first, to see */
	TimestampTz retry_at;		/* no call before this; 0: none was put off */
	TimestampTz last_success;	/* 0: never */
	TimestampTz last_failure;	/* 0: never */
	char reason[FAILURE_NAME];	/* of the last failure */
	char message[FAILURE_TEXT]; /* the same, in the provider's words */
} ProviderCall;

/* Guarded by the lock of ShmemState, whose part it is. */
typedef struct ProviderStats
{
	TimestampTz since;				  /* when counting began */
	TimestampTz key_since;			  /* when the key began to be used */
	char key[FINGERPRINT_LENGTH + 1]; /* empty: calls are made with none */
	ProviderCall calls[PROVIDER_CALLS];
} ProviderStats;

#endif
