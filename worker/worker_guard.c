/*-------------------------------------------------------------------------
 *
 * worker_guard.c
 *		The guard of gpu-orch-worker: a process that outlives a worker that was
 *		killed, and kills the handlers that it left behind.
 *
 * A handler without its worker has lost its lease, and would go on holding the
 * GPU beside the next attempt.  The guard reads process groups from a pipe;
 * when the pipe ends the worker is gone, however it ended.  Must not know
 * anything else.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

static int guard_fd = -1;
static pid_t guard_pid = 0;

/*
 * In the guard: keep the list of groups, and kill what is on it when the pipe
 * ends.  A positive number adds a group, its negative takes it off the list.
 */
static void
guard_main(int fd)
{
	static pid_t groups[MAX_CONCURRENCY];
	pid_t message;
	ssize_t length;
	int count = 0;
	int i;

	setpgid(0, 0); /* a signal to the worker's group is not for us */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	prctl(PR_SET_NAME, "gpu-orch-guard");

	/* a message is far shorter than PIPE_BUF: it is read whole or not at all */
	while ((length = read(fd, &message, sizeof(message))) != 0)
	{
		if (length < 0)
			continue;
		if (message > 0 && count < MAX_CONCURRENCY)
			groups[count++] = message;
		for (i = 0; i < count; i++)
			if (groups[i] == -message)
				groups[i--] = groups[--count];
	}
	while (count > 0)
		kill(-groups[--count], SIGKILL);
	_exit(0);
}

/*
 * Start the guard.  To be called while the program has a single thread, and no
 * secret in its environment any more.  Without a guard the worker goes on.
 */
void
guard_start(void)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return;
	guard_pid = fork();
	if (guard_pid == 0)
	{
		close(ends[1]);
		guard_main(ends[0]);
	}
	close(ends[0]);
	guard_fd = ends[1];
}

/*
 * End the guard, which kills what is still on its list, and wait for it.
 */
void
guard_stop(void)
{
	if (guard_fd >= 0)
		close(guard_fd);
	guard_fd = -1;
	if (guard_pid > 0)
		waitpid(guard_pid, NULL, 0);
}

/*
 * Tell the guard that a group begins (its number) or is about to end (the
 * negative).  The forked child tells its own beginning before it becomes the
 * handler, so that no death of the worker falls between the two; the end is
 * told while the number cannot be in use again.  Safe between fork and exec.
 */
void
guard_tell(pid_t message)
{
	if (guard_fd >= 0 && write(guard_fd, &message, sizeof(message)) < 0)
		return; /* the guard is gone: nothing depends on it */
}
