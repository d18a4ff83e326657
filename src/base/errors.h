/*
 * base/errors.h
 *	  The SQLSTATEs of our own class, GO.
 *
 * Everything else that a caller can run into uses the standard classes: bad
 * arguments 22023, rights and tokens 42501, missing preloading 55000, isolation
 * level 25001. Messages are lower case and name the thing; details hold facts;
 * hints hold an action.
 */
#ifndef GPU_ORCH_ERRORS_H
#define GPU_ORCH_ERRORS_H

#include "utils/elog.h"

/* The lease named by the caller is no longer this worker's. */
#define ERRCODE_GPU_ORCH_LEASE_LOST MAKE_SQLSTATE('G', 'O', '0', '0', '1')
/* A task, worker, pool or tenant of that name does not exist. */
#define ERRCODE_GPU_ORCH_UNKNOWN_OBJECT MAKE_SQLSTATE('G', 'O', '0', '0', '2')
/* An idempotency key was used before with a different body. */
#define ERRCODE_GPU_ORCH_KEY_REUSED MAKE_SQLSTATE('G', 'O', '0', '0', '3')
/* The state of a worker, pool or task does not allow what was asked. */
#define ERRCODE_GPU_ORCH_ILLEGAL_MOVE MAKE_SQLSTATE('G', 'O', '0', '0', '4')
/* The leader does not run, or did not answer in time. */
#define ERRCODE_GPU_ORCH_NO_LEADER MAKE_SQLSTATE('G', 'O', '0', '0', '5')
/* A limit set by an operator (tenant, pool, budget) refuses it. */
#define ERRCODE_GPU_ORCH_LIMIT MAKE_SQLSTATE('G', 'O', '0', '0', '6')
/* Another process works under this worker's id. */
#define ERRCODE_GPU_ORCH_WORKER_IN_USE MAKE_SQLSTATE('G', 'O', '0', '0', '7')

#endif
