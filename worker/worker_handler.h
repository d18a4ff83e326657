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

/* One running handler, beside the slot of the same number. */
typedef struct Handler
{
	pid_t pid;			   /* 0: none; also its process group */
	int fd[HANDLER_PIPES]; /* our ends, by the handler's number; -1: closed */
	size_t fed;			   /* bytes of the task written so far */
	char *output;
	size_t output_length;
	char tail[STDERR_TAIL]; /* end of standard error */
	size_t tail_length;
	char line[PROGRESS_LINE]; /* unfinished progress line */
	size_t line_length;
	bool line_too_long;
	bool overflow;			/* more output than allowed */
	StopReason stopped_for; /* STOP_NONE: not told to stop */
	double kill_at;			/* when SIGKILL is due; 0: no signal sent */
} Handler;

extern bool handler_start(Handler *handler, const Slot *slot);
extern void handler_feed(Handler *handler, const char *json);
extern bool handler_read(Handler *handler, Slot *slot, int number);
extern void handler_clear(Handler *handler);

#endif /* WORKER_HANDLER_H */
