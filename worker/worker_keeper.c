/*-------------------------------------------------------------------------
 *
 * worker_keeper.c
 *		The keeper: a process between gpu-orch-worker and one handler, which
 *		lets nothing that the handler started outlive it.
 *
 * A handler may start processes that leave its process group and its session,
 * and the worker may be killed before it can kill anything.  Either way
 * something would go on holding the GPU beside the next attempt.  So each
 * handler is the child of a keeper, and whatever descends from the handler
 * becomes the keeper's child when its own parent ends.  When the handler has
 * ended, when the worker says so, or when the worker is gone, the keeper kills
 * all of it, and then ends as the handler ended.  Must not know anything about
 * the task.
 *
 * A keeper is forked from a program with several threads and never becomes
 * another program: here only async-signal-safe functions are called.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker_handler.h"

/* How often the keeper kills what is left, and how long it waits each time. */
#define SWEEPS 100
#define SWEEP_PAUSE 50000000L /* nanoseconds */

/*
 * A signal that only has to end a wait.
 */
static void
keeper_woken(int signal_number)
{
	(void) signal_number;
}

/*
 * In the keeper's child: become the handler.  Does not return.
 */
__attribute__((noreturn)) static void
keeper_exec(const int theirs[HANDLER_PIPES], char *const *environment)
{
	char *const argv[] = { "sh", "-c", (char *) worker.opt.handler, NULL };
	sigset_t none;
	int number;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);

	/* none of theirs is below 4, see state_init(), so no dup2 hits another */
	for (number = 0; number < HANDLER_PIPES; number++)
		if (dup2(theirs[number], number) < 0)
			_exit(HANDLER_TRY_AGAIN);
	close_range(HANDLER_PIPES, ~0U, 0);

	signal(SIGPIPE, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve("/bin/sh", argv, environment);
	_exit(HANDLER_NOT_FOUND);
}

/*
 * Wait until the handler has ended; it stays a zombie, so that its group's
 * number remains its own.  Meanwhile do what the worker orders, and reap what
 * others left.  control: the worker's orders, whose end is the worker's.
 */
static void
keeper_wait(pid_t handler, int control)
{
	struct pollfd fd = { .fd = control, .events = POLLIN };
	sigset_t waiting;

	sigprocmask(SIG_SETMASK, NULL, &waiting);
	sigdelset(&waiting, SIGCHLD);
	for (;;)
	{
		siginfo_t info = { .si_pid = 0 };
		char order;
		ssize_t length;

		while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
		{
			if (info.si_pid == handler)
				return;
			waitpid(info.si_pid, NULL, 0);
			info.si_pid = 0;
		}
		if (ppoll(&fd, 1, NULL, &waiting) <= 0)
			continue;
		length = read(control, &order, 1);
		if (length < 0)
			continue;
		if (length == 0)
			fd.fd = -1;
		kill(-handler, length == 1 && order == KEEPER_TERM ? SIGTERM : SIGKILL);
	}
}

/*
 * Kill the keeper's children.
 */
static void
keeper_kill_children(void)
{
	char text[4096];
	int file = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	pid_t pid = 0;
	ssize_t length;
	ssize_t i;

	while ((length = read(file, text, sizeof(text))) > 0)
	{
		for (i = 0; i < length; i++)
		{
			if (text[i] >= '0' && text[i] <= '9')
				pid = pid * 10 + (text[i] - '0');
			else
			{
				if (pid > 0)
					kill(pid, SIGKILL);
				pid = 0;
			}
		}
	}
	close(file);
}

/*
 * Kill and reap all that descends from the handler.  Each pass makes children
 * of the keeper of what the killed ones had started.  What cannot be killed,
 * since it hangs in the kernel, is left alone after five seconds.
 */
static void
keeper_sweep(void)
{
	const struct timespec pause = { .tv_nsec = SWEEP_PAUSE };
	sigset_t child;
	int i;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (i = 0; i < SWEEPS; i++)
	{
		pid_t pid;

		keeper_kill_children();
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0)
			return; /* there is none */
		sigtimedwait(&child, NULL, &pause);
	}
}

/*
 * End as the handler ended.
 */
__attribute__((noreturn)) static void
keeper_end(int status)
{
	sigset_t own;

	if (WIFSIGNALED(status))
	{
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&own);
		sigaddset(&own, WTERMSIG(status));
		sigprocmask(SIG_UNBLOCK, &own, NULL);
		kill(getpid(), WTERMSIG(status));
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_INTERNAL);
}

/*
 * In the child that the worker forked for it: be the keeper of a handler with
 * these ends of its pipes and this environment.  Does not return.
 */
void
keeper_main(int control, const int theirs[HANDLER_PIPES], char *const *environment)
{
	struct sigaction woken = { .sa_handler = keeper_woken };
	pid_t handler;
	int status = 0;

	setpgid(0, 0); /* a signal to the worker's group is not for us */
	prctl(PR_SET_NAME, "gpu-orch-keeper");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigaction(SIGCHLD, &woken, NULL);

	handler = _Fork();
	if (handler < 0)
		_exit(HANDLER_TRY_AGAIN);
	if (handler == 0)
		keeper_exec(theirs, environment);
	setpgid(handler, handler); /* as the child does; whoever is first */

	/* the pipes of this handler and of all others shall end with their handlers */
	if (dup2(control, 0) < 0)
		kill(handler, SIGKILL);
	close_range(1, ~0U, 0);

	keeper_wait(handler, 0);
	kill(-handler, SIGKILL);
	waitpid(handler, &status, 0);
	keeper_sweep();
	keeper_end(status);
}
