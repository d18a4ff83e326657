/*-------------------------------------------------------------------------
 *
 * worker_handler.h
 *		One handler process of gpu-orch-worker, as the main thread sees it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_HANDLER_H
#define WORKER_HANDLER_H

#include <sys/types.h>

#include "worker.h"

#define HANDLER_PIPES 4

/* What exit statuses of a handler mean; all others but 0 are failures of the task. */
#define HANDLER_REJECTED 65
#define HANDLER_TRY_AGAIN 75
#define HANDLER_NOT_EXECUTABLE 126 /* as the shell says it */
#define HANDLER_NOT_FOUND 127

/* Orders to a keeper. */
#define KEEPER_TERM 'T' /* SIGTERM to the handler's group */
#define KEEPER_KILL 'K' /* kill all of it */

/* One running handler, beside the slot of the same number. */
typedef struct Handler
{
	pid_t pid;			   /* of its keeper; 0: none */
	int control;		   /* our end of the keeper's pipe */
	double started;		   /* when, on clock_now()'s scale */
	int fd[HANDLER_PIPES]; /* our ends, by the handler's number; -1: closed */
	size_t fed;			   /* bytes of the task written so far */
	char *output;
	size_t output_length;
	char tail[STDERR_TAIL]; /* end of standard error */
	size_t tail_length;
	size_t error_length;	  /* bytes of standard error so far */
	char line[PROGRESS_LINE]; /* unfinished progress line */
	size_t line_length;
	bool line_too_long;
	bool overflow;			/* more output than allowed */
	StopReason stopped_for; /* STOP_NONE: not told to stop */
	double kill_at;			/* when SIGKILL is due; 0: no signal sent */
} Handler;

extern bool handler_start(Handler *handler, const Slot *slot);
extern void handler_order(const Handler *handler, char order);
extern void handler_feed(Handler *handler, const char *json);
extern bool handler_read(Handler *handler, Slot *slot, int number);
extern void handler_clear(Handler *handler);

/* worker_keeper.c */
extern void keeper_main(int control, const int theirs[HANDLER_PIPES], char *const *environment)
	__attribute__((noreturn));

#endif /* WORKER_HANDLER_H */
