/*-------------------------------------------------------------------------
 *
 * worker_handler.c
 *		One handler process of gpu-orch-worker and its four pipes: starting it,
 *		feeding it, reading from it.
 *
 * Runs in the main thread alone.  Must not decide anything about the task:
 * what became of it is judged in worker_task.c.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker_handler.h"

#define READ_CHUNK 65536

extern char **environ;

/*
 * Close our end of one pipe.
 */
static void
handler_close(Handler *handler, int number)
{
	if (handler->fd[number] >= 0)
		close(handler->fd[number]);
	handler->fd[number] = -1;
}

/*
 * The handler's environment: what it should know about its task, then ours
 * without the connection's settings.  Freed by handler_environment_free().
 */
static char **
handler_environment(const Task *task, int slot_number)
{
	char **result;
	size_t count = 0;
	size_t size = 5;
	char **variable;

	for (variable = environ; *variable != NULL; variable++)
		size++;
	result = xrealloc(NULL, size * sizeof(char *));

	result[count++] = format_text("GPU_ORCH_TASK_ID=%s", task->task_id);
	result[count++] = format_text("GPU_ORCH_ATTEMPT=%s", task->attempt);
	result[count++] = format_text("GPU_ORCH_SLOT=%d", slot_number);
	if (task->traceparent != NULL)
		result[count++] = format_text("TRACEPARENT=%s", task->traceparent);
	for (variable = environ; *variable != NULL; variable++)
		if (strncmp(*variable, "PG", 2) != 0 && strncmp(*variable, "TRACEPARENT=", 12) != 0)
			result[count++] = *variable;
	result[count] = NULL;
	return result;
}

/*
 * Free an environment and the strings in it that are its own.
 */
static void
handler_environment_free(const Task *task, char **environment)
{
	int own = task->traceparent != NULL ? 4 : 3;
	int i;

	for (i = 0; i < own; i++)
		free(environment[i]);
	free(environment);
}

/*
 * Start the handler of a claimed slot; handler is overwritten.  False, with
 * errno set and nothing to clear, where the system has no more processes or
 * descriptors.
 */
bool
handler_start(Handler *handler, const Slot *slot)
{
	int theirs[HANDLER_PIPES];
	int control[2] = { -1, -1 };
	char **environment = handler_environment(&slot->task, slot->number);
	int error = 0;
	int number;

	memset(handler, 0, sizeof(*handler));
	for (number = 0; number < HANDLER_PIPES; number++)
	{
		int ends[2] = { -1, -1 };
		bool writes = number != STDIN_FILENO;

		if (pipe2(ends, O_CLOEXEC) != 0)
			error = errno;
		else
			fcntl(ends[writes ? 0 : 1], F_SETFL, O_NONBLOCK);
		theirs[number] = ends[writes ? 1 : 0];
		handler->fd[number] = ends[writes ? 0 : 1];
	}

	if (error == 0 && pipe2(control, O_CLOEXEC | O_NONBLOCK) != 0)
		error = errno;
	if (error == 0)
	{
		handler->pid = fork();
		if (handler->pid == 0)
			keeper_main(control[0], theirs, environment);
		if (handler->pid < 0)
			error = errno;
	}
	handler->control = control[1];
	handler->started = clock_now();
	if (control[0] >= 0)
		close(control[0]);

	for (number = 0; number < HANDLER_PIPES; number++)
		if (theirs[number] >= 0)
			close(theirs[number]);
	handler_environment_free(&slot->task, environment);
	if (error != 0)
		handler_clear(handler);
	errno = error;
	return error == 0;
}

/*
 * Close and free what a handler that ended still has.
 */
void
handler_clear(Handler *handler)
{
	int number;

	for (number = 0; number < HANDLER_PIPES; number++)
		handler_close(handler, number);
	if (handler->control >= 0)
		close(handler->control);
	free(handler->output);
	memset(handler, 0, sizeof(*handler));
}

/*
 * Give the handler's keeper an order, one of KEEPER_*.  A keeper that is gone
 * needs none.
 */
void
handler_order(const Handler *handler, char order)
{
	while (write(handler->control, &order, 1) < 0 && errno == EINTR)
		;
}

/*
 * Write what the pipe takes of the task, followed by a newline, to the
 * handler; one that does not read is its own affair.
 */
void
handler_feed(Handler *handler, const char *json)
{
	size_t length = strlen(json);
	ssize_t written;

	while (handler->fed <= length)
	{
		if (handler->fed < length)
			written = write(handler->fd[STDIN_FILENO], json + handler->fed, length - handler->fed);
		else
			written = write(handler->fd[STDIN_FILENO], "\n", 1);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0 && errno == EAGAIN)
			return;
		if (written < 0)
			break;
		handler->fed += written;
	}
	handler_close(handler, STDIN_FILENO);
}

/*
 * Take one progress line into the slot.  A line that is not an object
 * with a fraction between 0 and 1 or a stage is passed over.
 */
static void
handler_progress(Slot *slot, const char *line, size_t length)
{
	json_t *object = json_loadb(line, length, JSON_DECODE_INT_AS_REAL, NULL);
	json_t *fraction = json_object_get(object, "fraction");
	json_t *stage = json_object_get(object, "stage");
	double value = json_number_value(fraction);

	pthread_mutex_lock(&worker.lock);
	if (json_is_number(fraction) && value >= 0 && value <= 1)
	{
		slot->fraction = value;
		slot->progress_due = true;
	}
	if (json_is_string(stage) && json_string_length(stage) <= STAGE_BYTES)
	{
		strcpy(slot->stage, json_string_value(stage));
		slot->progress_due = true;
	}
	pthread_mutex_unlock(&worker.lock);
	json_decref(object);
	wake(worker.queue_wake);
}

/*
 * Split what came on the progress pipe into lines.  A line longer
 * than the buffer is dropped.
 */
static void
handler_progress_bytes(Handler *handler, Slot *slot, const char *bytes, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
	{
		if (bytes[i] != '\n')
		{
			if (handler->line_length < PROGRESS_LINE)
				handler->line[handler->line_length++] = bytes[i];
			else
				handler->line_too_long = true;
			continue;
		}
		if (!handler->line_too_long)
			handler_progress(slot, handler->line, handler->line_length);
		handler->line_length = 0;
		handler->line_too_long = false;
	}
}

/*
 * Keep what came on standard output; more than is allowed dooms the handler
 * and is not read.
 */
static void
handler_output_bytes(Handler *handler, const char *bytes, size_t length)
{
	if (handler->output_length + length > worker.opt.max_output)
	{
		handler->overflow = true;
		handler_close(handler, STDOUT_FILENO);
		return;
	}
	handler->output = xrealloc(handler->output, handler->output_length + length);
	memcpy(handler->output + handler->output_length, bytes, length);
	handler->output_length += length;
}

/*
 * Pass on what came on standard error, up to a limit, and keep its tail.
 */
static void
handler_error_bytes(Handler *handler, const Slot *slot, const char *bytes, size_t length)
{
	size_t before = handler->error_length;
	size_t left = before < STDERR_LOGGED ? STDERR_LOGGED - before : 0;
	size_t keep;

	handler->error_length += length;
	log_bytes(bytes, length < left ? length : left);
	if (before <= STDERR_LOGGED && handler->error_length > STDERR_LOGGED)
	{
		log_bytes("\n", 1);
		log_line("task %s attempt %s: the rest of its standard error is not logged",
				 slot->task.task_id, slot->task.attempt);
	}
	if (length > STDERR_TAIL)
	{
		bytes += length - STDERR_TAIL;
		length = STDERR_TAIL;
	}
	keep = handler->tail_length;
	if (keep + length > STDERR_TAIL)
		keep = STDERR_TAIL - length;
	memmove(handler->tail, handler->tail + handler->tail_length - keep, keep);
	memcpy(handler->tail + keep, bytes, length);
	handler->tail_length = keep + length;
}

/*
 * Read from one of the handler's pipes once; true when there may be
 * more.  The end of the file closes our end.
 */
bool
handler_read(Handler *handler, Slot *slot, int number)
{
	static char buffer[READ_CHUNK];
	ssize_t length;

	if (handler->fd[number] < 0)
		return false;
	length = read(handler->fd[number], buffer, sizeof(buffer));
	if (length < 0)
		return errno == EINTR;
	if (length == 0)
		handler_close(handler, number);
	else if (number == STDOUT_FILENO)
		handler_output_bytes(handler, buffer, length);
	else if (number == STDERR_FILENO)
		handler_error_bytes(handler, slot, buffer, length);
	else
		handler_progress_bytes(handler, slot, buffer, length);
	return length > 0;
}
