/*
 * decide/fsm_worker.h
 *	  The legal moves of a worker, as data. Pure.
 */
#ifndef GPU_ORCH_FSM_WORKER_H
#define GPU_ORCH_FSM_WORKER_H

#include <stdbool.h>

typedef enum WorkerState
{
	WS_SPAWNING,	 /* the intent is committed; a pod may or may not exist */
	WS_INITIALIZING, /* the provider confirmed a pod; the worker has not spoken */
	WS_ACTIVE,		 /* registered, claims */
	WS_DRAINING,	 /* finishes what it holds, gets nothing new */
	WS_TERMINATING,	 /* a delete is owed to the provider */
	WS_TERMINATED,	 /* confirmed; final */
	WS_COUNT
} WorkerState;

/* A set: a rule may hold for both. */
typedef enum WorkerOrigin
{
	WO_CLOUD = 1,	 /* its pod is ours */
	WO_EXTERNAL = 2, /* registered itself; no delete is ever owed for it */
	WO_ANY = 3
} WorkerOrigin;

typedef struct WorkerRule
{
	int rule; /* its number; events name it */
	WorkerState from;
	WorkerState to;
	WorkerOrigin origin;
	const char *cause;
	const char *comment;
} WorkerRule;

extern const WorkerRule worker_rules[];
extern const int n_worker_rules;

extern const WorkerRule *fsm_worker_find(WorkerState from, WorkerOrigin origin, const char *cause);
extern const char *fsm_worker_state_name(WorkerState state);
extern bool fsm_worker_state_parse(const char *name, WorkerState *state);
extern const char *fsm_worker_origin_name(WorkerOrigin origin);
extern const char *fsm_worker_check(const WorkerRule *rules, int n_rules);

#endif
