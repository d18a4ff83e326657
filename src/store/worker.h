/*
 * store/worker.h
 *	  Workers.
 */
#ifndef GPU_ORCH_STORE_WORKER_H
#define GPU_ORCH_STORE_WORKER_H

#include "common/sha2.h"
#include "decide/fsm_worker.h"
#include "db/spi_util.h"
#include "store/meets.h"

typedef struct WorkerRow
{
	int64 no;
	char *id;
	WorkerOrigin origin;
	int32 pool; /* 0: none */
	WorkerState state;
	int32 epoch;
	int64 capset; /* id of the canonical capabilities */
	TimestampTz state_since;
	TimestampTz created_at;
	TimestampTz last_heartbeat; /* 0: never */
	TimestampTz busy_at;		/* 0: never */
	bool has_session;
	uint8 session_digest[PG_SHA256_DIGEST_LENGTH];
} WorkerRow;

/* What a worker's own calls need of its row. */
typedef struct WorkerCall
{
	int64 no;
	const char *id; /* as the caller gave it */
	WorkerState state;
	int64 capset;
	TimestampTz busy_at; /* 0: never */
	uint8 session_digest[PG_SHA256_DIGEST_LENGTH];
} WorkerCall;

/* The wide part, as far as C code wants it. */
typedef struct WorkerProfile
{
	char *pod_id;
	char *bound_pod_id;
	bool has_registration;
	uint8 registration_digest[PG_SHA256_DIGEST_LENGTH];
	int64 price_micros;
} WorkerProfile;

/* A worker as the planner and the reconciler look at it. */
typedef struct WorkerInfo
{
	int64 no;
	char *id;
	WorkerOrigin origin;
	int32 pool;
	WorkerState state;
	TimestampTz state_since;
	TimestampTz created_at;
	TimestampTz last_heartbeat;
	TimestampTz busy_at;
	int64 held;		  /* leases */
	bool create_open; /* its create is planned, sent or unknown */
	char *pod_id;	  /* NULL: not known */
	int64 price_micros;
	bool recallable;		  /* if it drains, it does so for want of demand */
	double boot_expected;	  /* s; 0: not known */
	double booted_in;		  /* s; 0: not known */
	bool no_runtime;		  /* the provider shows its pod running, and nothing in it */
	bool claimed;			  /* it has held a lease, ever */
	int32 registrations;	  /* since the last of which it has not answered for a task, or 0 */
	TimestampTz passed_since; /* since when tasks wait that it could claim; 0: none does */
	char *unreadable;		  /* what its row says, which is no state; NULL: it says one */
} WorkerInfo;

/* Idle workers that offer the same. */
typedef struct IdleSet
{
	CapabilitySet set;
	int workers;
} IdleSet;

extern bool store_worker_call(const char *id, WorkerCall *worker);
extern bool store_worker_find(const char *id, bool lock, WorkerRow *worker);
extern bool store_worker_ended(const char *id, TimestampTz *ended_at, char **cause);
extern bool store_worker_lock(int64 no, WorkerRow *worker);
extern void store_worker_profile(int64 no, WorkerProfile *profile);
extern int store_worker_idle_external(IdleSet **sets);
extern int64 store_worker_try_create(const char *id, WorkerOrigin origin, int32 pool,
									 WorkerState state, TimestampTz now);
extern int64 store_worker_create(const char *id, WorkerOrigin origin, int32 pool, WorkerState state,
								 TimestampTz now);
extern int64 store_worker_count_of(const char *role, int64 limit);
extern void store_worker_set_registrar(int64 no, const char *role);
extern void store_worker_register(const WorkerRow *worker, Jsonb *capabilities, int64 capset,
								  int32 pool, const char *pod_id, const char *token,
								  TimestampTz now);
extern void store_worker_heartbeat(int64 no, Jsonb *stats, TimestampTz now);
extern void store_worker_touch_busy(int64 no, TimestampTz now);
extern Jsonb *store_worker_capabilities(int64 no);
extern void store_worker_set_slots(int64 no, int32 slots);
extern int32 store_worker_slots(int64 no);
extern void store_worker_set_registration(int64 no, const uint8 *digest);
extern void store_worker_set_pod(int64 no, const char *pod_id, const char *gpu_type,
								 const char *data_center, int64 price_micros, TimestampTz now);
extern const WorkerRule *store_worker_move(int64 no, const char *cause, const char *why,
										   TimestampTz now);
extern int store_worker_list(WorkerInfo **workers);
extern void store_worker_set_runtime(int64 no, bool missing);

#endif
