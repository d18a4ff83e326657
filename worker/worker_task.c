/*-------------------------------------------------------------------------
 *
 * worker_task.c
 *		The tasks of gpu-orch-worker's slots: when a handler starts, when it must
 *		go, and what its end means.
 *
 * Runs in the main thread alone, which makes it safe to signal a process group:
 * nobody else reaps, so a group lives (if only as a zombie) until we are done
 * with it.  Must not call the database; an outcome is left in the slot.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "worker_handler.h"

static Handler *handlers;

/*
 * Allocate the handlers, one for each slot.
 */
void
task_init(void)
{
	size_t size = worker.opt.concurrency * sizeof(Handler);

	handlers = memset(xrealloc(NULL, size), 0, size);
}

/*
 * Free what task_init() made; no handler runs any more.
 */
void
task_free(void)
{
	free(handlers);
}

/*
 * Record how a slot's attempt ended and hand the slot to the queue thread.
 * Takes over the malloc'd strings.
 */
static void
task_end(Slot *slot, OutcomeKind kind, char *result, char *error, const char *failure, bool retry)
{
	pthread_mutex_lock(&worker.lock);
	slot->outcome.kind = kind;
	slot->outcome.result = result;
	slot->outcome.error = error;
	slot->outcome.failure = failure;
	slot->outcome.retry = retry;
	slot->state = SLOT_ENDED;
	pthread_mutex_unlock(&worker.lock);
	wake(worker.queue_wake);
}

/*
 * Start the handler of a claimed slot.  Where that cannot be done the task
 * fails, for the platform's fault.
 */
static void
task_start(Slot *slot, Handler *handler)
{
	if (!handler_start(handler, slot))
	{
		task_end(slot, OUTCOME_FAILED, NULL,
				 format_text("could not start the handler: %s", strerror(errno)), "platform", true);
		return;
	}
	pthread_mutex_lock(&worker.lock);
	slot->state = SLOT_RUNNING;
	pthread_mutex_unlock(&worker.lock);
}

/*
 * An error text: what happened, and the end of the handler's standard error.
 * Malloc'd.
 */
static char *
task_error(const Handler *handler, const char *what)
{
	size_t length = handler->tail_length;
	char *tail;
	char *text;

	while (length > 0 && isspace((unsigned char) handler->tail[length - 1]))
		length--;
	tail = clean_text(handler->tail, length);
	text = format_text("%s%s%s", what, *tail != '\0' ? "\n" : "", tail);
	free(tail);
	return text;
}

/*
 * Judge a handler that ended by itself with this wait status.
 */
static void
task_judge(Slot *slot, Handler *handler, int status)
{
	char what[256];
	json_t *json;
	json_error_t json_error;

	if (WIFSIGNALED(status))
	{
		snprintf(what, sizeof(what), "handler was killed by signal %d (%s)", WTERMSIG(status),
				 strsignal(WTERMSIG(status)));
		task_end(slot, OUTCOME_FAILED, NULL, task_error(handler, what), "task", true);
		return;
	}
	if (WEXITSTATUS(status) != 0)
	{
		snprintf(what, sizeof(what), "handler exited with status %d", WEXITSTATUS(status));
		task_end(slot, OUTCOME_FAILED, NULL, task_error(handler, what),
				 WEXITSTATUS(status) == 75	   ? "platform" :
					 WEXITSTATUS(status) == 65 ? "rejected" :
												 "task",
				 WEXITSTATUS(status) != 65);
		return;
	}
	if (handler->output_length == 0)
	{
		task_end(slot, OUTCOME_SUCCEEDED, NULL, NULL, NULL, false);
		return;
	}

	/* the text goes to the server as it came, so that no number is rounded here */
	json = json_loadb(handler->output, handler->output_length,
					  JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &json_error);
	if (json == NULL)
	{
		snprintf(what, sizeof(what), "the handler's output is not valid JSON: %s", json_error.text);
		task_end(slot, OUTCOME_FAILED, NULL, task_error(handler, what), "task", true);
		return;
	}
	json_decref(json);
	task_end(slot, OUTCOME_SUCCEEDED, clean_text(handler->output, handler->output_length), NULL,
			 NULL, false);
}

/*
 * Has the handler ended?  Then read what it left in the pipes, kill what is
 * left of its group, and record the outcome.
 */
static void
task_reap(Slot *slot, Handler *handler)
{
	char what[128];
	siginfo_t info = { .si_pid = 0 };
	int status = 0;
	int number;

	if (waitid(P_PID, handler->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
		return;

	/* the zombie keeps the group's number ours; pipes hold no more than 64 kB each */
	kill(-handler->pid, SIGKILL);
	guard_tell(-handler->pid);
	waitpid(handler->pid, &status, 0);
	for (number = STDOUT_FILENO; number < HANDLER_PIPES; number++)
		for (int chunk = 0; chunk < 32 && handler_read(handler, slot, number); chunk++)
			;

	if (handler->stopped_for == STOP_NONE && handler->overflow)
		handler->stopped_for = STOP_OUTPUT;
	switch (handler->stopped_for)
	{
		case STOP_NONE:
			task_judge(slot, handler, status);
			break;
		case STOP_RELEASE:
			task_end(slot, OUTCOME_RELEASED, NULL, NULL, NULL, false);
			break;
		case STOP_CANCELLED:
			task_end(slot, OUTCOME_FAILED, NULL, xstrdup("cancelled by request"), "task", false);
			break;
		case STOP_DEADLINE:
			task_end(slot, OUTCOME_FAILED, NULL,
					 task_error(handler, "the task's deadline has passed"), "task", true);
			break;
		case STOP_OUTPUT:
			snprintf(what, sizeof(what), "the handler's output is longer than %zu bytes",
					 worker.opt.max_output);
			task_end(slot, OUTCOME_FAILED, NULL, task_error(handler, what), "task", true);
			break;
	}

	handler_clear(handler);
}

/*
 * Kill a handler that must go: SIGTERM to its group, and SIGKILL when the
 * grace is over or there is none.
 */
static void
task_kill(Slot *slot, Handler *handler, bool kill_now)
{
	double now = clock_now();
	bool doomed;

	pthread_mutex_lock(&worker.lock);
	if (slot->stop == STOP_NONE)
	{
		if (handler->overflow)
			slot->stop = STOP_OUTPUT;
		else if (slot->task.deadline != 0 && now >= slot->task.deadline)
			slot->stop = STOP_DEADLINE;
		else if (worker.stop_asked)
			slot->stop = STOP_RELEASE;
	}
	doomed = slot->fenced || slot->stop != STOP_NONE;
	if (doomed && handler->kill_at == 0)
		handler->stopped_for = slot->stop;
	pthread_mutex_unlock(&worker.lock);

	if (!doomed)
		return;
	if (handler->kill_at == 0)
	{
		handler->kill_at = now + KILL_GRACE;
		kill(-handler->pid, SIGTERM);
	}
	if (kill_now || now >= handler->kill_at)
	{
		handler->kill_at = now + KILL_GRACE;
		kill(-handler->pid, SIGKILL);
	}
}

/*
 * Reap children that are no handlers: as the first process of a container the
 * worker inherits the orphans.  Stops at a handler that has just ended, which
 * the next step reaps.
 */
static void
task_reap_orphans(void)
{
	siginfo_t info = { .si_pid = 0 };
	int i;

	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
	{
		for (i = 0; i < worker.opt.concurrency; i++)
			if (handlers[i].pid == info.si_pid)
				return;
		waitpid(info.si_pid, NULL, WNOHANG);
		info.si_pid = 0;
	}
}

/*
 * Do what is due for one slot.
 */
static void
task_step_slot(Slot *slot, Handler *handler, bool kill_now)
{
	SlotState state;
	StopReason stop;
	bool release;
	int number;

	pthread_mutex_lock(&worker.lock);
	state = slot->state;
	stop = slot->stop;
	release = slot->fenced || worker.stop_asked;
	pthread_mutex_unlock(&worker.lock);

	if (state == SLOT_CLAIMED)
	{
		if (release)
			task_end(slot, OUTCOME_RELEASED, NULL, NULL, NULL, false);
		else if (stop == STOP_CANCELLED)
			task_end(slot, OUTCOME_FAILED, NULL, xstrdup("cancelled by request"), "task", false);
		else
			task_start(slot, handler);
	}
	if (handler->pid == 0)
		return;

	if (handler->fd[STDIN_FILENO] >= 0)
		handler_feed(handler, slot->task.json);
	for (number = STDOUT_FILENO; number < HANDLER_PIPES; number++)
		handler_read(handler, slot, number);
	task_reap(slot, handler);
	if (handler->pid != 0)
		task_kill(slot, handler, kill_now);
}

/*
 * Do what is due for every slot: start claimed tasks, move bytes, reap, kill.
 * kill_now: handlers that must go get no grace.
 */
void
task_step(bool kill_now)
{
	int i;

	for (i = 0; i < worker.opt.concurrency; i++)
		task_step_slot(&worker.slots[i], &handlers[i], kill_now);
	task_reap_orphans();
}

/*
 * Fill in the descriptors that the handlers' pipes need polled, at most four
 * for each slot; returns their number.
 */
int
task_poll_fds(struct pollfd *fds)
{
	int count = 0;
	int i;
	int number;

	for (i = 0; i < worker.opt.concurrency; i++)
	{
		for (number = 0; handlers[i].pid != 0 && number < HANDLER_PIPES; number++)
		{
			if (handlers[i].fd[number] < 0)
				continue;
			fds[count].fd = handlers[i].fd[number];
			fds[count].events = number == STDIN_FILENO ? POLLOUT : POLLIN;
			count++;
		}
	}
	return count;
}

/*
 * Seconds until a deadline or a SIGKILL is due, an hour at most.
 */
double
task_next_due(void)
{
	double now = clock_now();
	double due = now + 3600;
	int i;

	pthread_mutex_lock(&worker.lock);
	for (i = 0; i < worker.opt.concurrency; i++)
	{
		Slot *slot = &worker.slots[i];

		if (slot->state != SLOT_RUNNING)
			continue;
		if (handlers[i].kill_at != 0)
		{
			if (handlers[i].kill_at < due)
				due = handlers[i].kill_at;
		}
		else if (slot->task.deadline != 0 && slot->task.deadline < due)
			due = slot->task.deadline;
	}
	pthread_mutex_unlock(&worker.lock);
	return due > now ? due - now : 0;
}
