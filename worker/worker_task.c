/*-------------------------------------------------------------------------
 *
 * worker_task.c
 *		The tasks of gpu-orch-worker's slots: when a handler starts, when it must
 *		go, and what its end means.
 *
 * Runs in the main thread alone.  Handlers are signalled and killed by their
 * keepers (worker_keeper.c), which end when nothing of the handler is left.
 * Must not call the database; an outcome is left in the slot.
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
 * The words for an outcome in the log.
 */
static const char *
task_outcome_name(const Outcome *outcome)
{
	switch (outcome->kind)
	{
		case OUTCOME_SUCCEEDED:
			return "succeeded";
		case OUTCOME_RELEASED:
			return "was given back";
		case OUTCOME_FAILED:
			break;
	}
	return strcmp(outcome->failure, "platform") == 0 ? "failed for the platform's fault" :
		strcmp(outcome->failure, "rejected") == 0	 ? "was rejected" :
													   "failed";
}

/*
 * Record how a slot's attempt ended and hand the slot to the queue thread, which
 * takes over the malloc'd strings.  handler is NULL where none was started;
 * what, which may be NULL, explains the outcome in the log.
 */
static void
task_end(Slot *slot, const Handler *handler, Outcome outcome, const char *what)
{
	const Task *task = &slot->task;
	bool fenced;

	pthread_mutex_lock(&worker.lock);
	fenced = slot->fenced;
	pthread_mutex_unlock(&worker.lock);
	log_line("task %s attempt %s (%s) %s after %.3f s%s%s", task->task_id, task->attempt,
			 task->kind, fenced ? "was taken away" : task_outcome_name(&outcome),
			 handler != NULL ? clock_now() - handler->started : 0, what != NULL ? ": " : "",
			 what != NULL ? what : "");

	pthread_mutex_lock(&worker.lock);
	slot->outcome = outcome;
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
	const Task *task = &slot->task;

	log_line("task %s attempt %s (%s) starts in slot %d", task->task_id, task->attempt, task->kind,
			 slot->number);
	if (!handler_start(handler, slot))
	{
		char *error = format_text("could not start the handler: %s", strerror(errno));

		(void) health_note(task, HANDLER_PREVENTED, error);
		task_end(slot, NULL,
				 (Outcome){
					 .kind = OUTCOME_FAILED, .error = error, .failure = "platform", .retry = true },
				 error);
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
 * The outcome of a task that was cancelled.
 */
static Outcome
task_cancelled(void)
{
	return (Outcome){ .kind = OUTCOME_FAILED,
					  .error = xstrdup("cancelled by request"),
					  .failure = "task" };
}

/*
 * End a slot's attempt as failed.
 */
static void
task_fail(Slot *slot, Handler *handler, const char *what, const char *failure, bool retry)
{
	task_end(slot, handler,
			 (Outcome){ .kind = OUTCOME_FAILED,
						.error = task_error(handler, what),
						.failure = failure,
						.retry = retry },
			 what);
}

/*
 * Judge a handler that ended by itself with a status other than 0.
 */
static void
task_judge_status(Slot *slot, Handler *handler, int status)
{
	char what[64];

	snprintf(what, sizeof(what), "handler exited with status %d", status);
	switch (status)
	{
		case HANDLER_REJECTED:
			task_fail(slot, handler, what, "rejected", false);
			break;
		case HANDLER_TRY_AGAIN:
			(void) health_note(&slot->task, HANDLER_PREVENTED, what);
			task_fail(slot, handler, what, "platform", true);
			break;
		case HANDLER_NOT_EXECUTABLE:
		case HANDLER_NOT_FOUND:
			if (health_note(&slot->task, HANDLER_MISSING, what))
				task_end(slot, handler, (Outcome){ .kind = OUTCOME_RELEASED }, what);
			else
				task_fail(slot, handler, what, "platform", true);
			break;
		default:
			(void) health_note(&slot->task, HANDLER_FAILED, what);
			task_fail(slot, handler, what, "task", true);
			break;
	}
}

/*
 * Judge a handler that ended by itself with this wait status.
 */
static void
task_judge(Slot *slot, Handler *handler, int status)
{
	char what[256];
	char *result = NULL;
	json_t *json;
	json_error_t json_error;

	if (WIFSIGNALED(status))
	{
		snprintf(what, sizeof(what), "handler was killed by signal %d (%s)", WTERMSIG(status),
				 strsignal(WTERMSIG(status)));
		(void) health_note(&slot->task, HANDLER_FAILED, what);
		task_fail(slot, handler, what, "task", true);
		return;
	}
	if (WEXITSTATUS(status) != 0)
	{
		task_judge_status(slot, handler, WEXITSTATUS(status));
		return;
	}
	if (handler->output_length > 0)
	{
		/* the text goes to the server as it came, so that no number is rounded here */
		json = json_loadb(handler->output, handler->output_length,
						  JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &json_error);
		if (json == NULL)
		{
			snprintf(what, sizeof(what), "the handler's output is not valid JSON: %s",
					 json_error.text);
			(void) health_note(&slot->task, HANDLER_FAILED, what);
			task_fail(slot, handler, what, "task", true);
			return;
		}
		json_decref(json);
		result = clean_text(handler->output, handler->output_length);
	}
	(void) health_note(&slot->task, HANDLER_WORKED, NULL);
	task_end(slot, handler, (Outcome){ .kind = OUTCOME_SUCCEEDED, .result = result }, NULL);
}

/*
 * Has the handler ended, with all that it started?  Then read what it left in
 * the pipes, and record the outcome.
 */
static void
task_reap(Slot *slot, Handler *handler)
{
	char what[128];
	int status = 0;
	int number;

	if (waitpid(handler->pid, &status, WNOHANG) != handler->pid)
		return;
	/* a pipe holds 64 kB, or a megabyte where the handler made it larger */
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
			task_end(slot, handler, (Outcome){ .kind = OUTCOME_RELEASED }, "this worker ends");
			break;
		case STOP_CANCELLED:
			task_end(slot, handler, task_cancelled(), "cancelled by request");
			break;
		case STOP_DEADLINE:
			task_fail(slot, handler, "the task's deadline has passed", "task", true);
			break;
		case STOP_OUTPUT:
			snprintf(what, sizeof(what), "the handler's output is longer than %zu bytes",
					 worker.opt.max_output);
			task_fail(slot, handler, what, "task", true);
			break;
	}

	handler_clear(handler);
}

/*
 * End a handler that must go: SIGTERM to its group, and SIGKILL for all that it
 * started when the grace is over or there is none.
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
		handler_order(handler, KEEPER_TERM);
	}
	if (kill_now || now >= handler->kill_at)
	{
		handler->kill_at = now + KILL_GRACE;
		handler_order(handler, KEEPER_KILL);
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
	release = slot->fenced || worker.stop_asked || worker.broken != NULL;
	pthread_mutex_unlock(&worker.lock);

	if (state == SLOT_CLAIMED)
	{
		if (release)
			task_end(slot, NULL, (Outcome){ .kind = OUTCOME_RELEASED }, "this worker ends");
		else if (stop == STOP_CANCELLED)
			task_end(slot, NULL, task_cancelled(), "cancelled by request");
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
