/*-------------------------------------------------------------------------
 *
 * worker_util.c
 *		Small things that every file of gpu-orch-worker needs: the log, the
 *		clock, backoff, wake-ups, memory, text.
 *
 * Must not know about tasks, the database or the state of the worker, and must
 * never be handed a token.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

/*
 * Write one line with the time (UTC) to standard error.  The line goes out in
 * one write, so that lines of different threads do not mix; newlines within the
 * message (libpq's errors have some) become spaces.
 */
void
log_line(const char *fmt, ...)
{
	char line[2048];
	struct timespec ts;
	struct tm tm;
	size_t length;
	va_list args;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	length = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	length += snprintf(line + length, sizeof(line) - length, ".%03ldZ " PROGRAM_NAME ": ",
					   ts.tv_nsec / 1000000);

	va_start(args, fmt);
	vsnprintf(line + length, sizeof(line) - length - 1, fmt, args);
	va_end(args);

	for (length = 0; line[length] != '\0'; length++)
		if (line[length] == '\n')
			line[length] = ' ';
	line[length++] = '\n';
	log_bytes(line, length);
}

/*
 * Write bytes to standard error as they are.  When that fails there is nowhere
 * to complain.
 */
void
log_bytes(const char *bytes, size_t length)
{
	while (length > 0)
	{
		ssize_t written = write(STDERR_FILENO, bytes, length);

		if (written <= 0)
			return;
		bytes += written;
		length -= written;
	}
}

/*
 * Seconds on a clock that never jumps.
 */
double
clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * A random time between three quarters of the given one and the whole, so that
 * a fleet does not act in step.
 */
double
jitter(double seconds)
{
	return seconds * (0.75 + 0.25 * random() / RAND_MAX);
}

/*
 * The next waiting time in seconds: doubles from BACKOFF_FIRST up to the cap.
 * A zeroed Backoff starts anew.
 */
double
backoff_next(Backoff *backoff, double cap)
{
	backoff->last = backoff->last == 0 ? BACKOFF_FIRST : backoff->last * 2;
	if (backoff->last > cap)
		backoff->last = cap;
	return jitter(backoff->last);
}

/*
 * Wake the thread that waits on this eventfd, or make its next wait short.
 */
void
wake(int fd)
{
	eventfd_write(fd, 1);
}

/*
 * Wait until woken, until other_fd (or -1) is readable, or until the time is
 * over.  True when other_fd is readable or broken.
 */
bool
wait_for(int wake_fd, int other_fd, double seconds)
{
	struct pollfd fds[2] = { { .fd = wake_fd, .events = POLLIN },
							 { .fd = other_fd, .events = POLLIN } };
	eventfd_t ignored;

	if (seconds < 0)
		seconds = 0;
	if (seconds > 3600)
		seconds = 3600;
	if (poll(fds, 2, (int) (seconds * 1000) + 1) <= 0)
		return false;
	if (fds[0].revents != 0)
		eventfd_read(wake_fd, &ignored);
	return fds[1].revents != 0;
}

/*
 * realloc() that ends the program when memory is gone.
 */
void *
xrealloc(void *pointer, size_t size)
{
	void *result = realloc(pointer, size);

	if (result == NULL)
	{
		log_line("out of memory");
		_exit(EXIT_INTERNAL);
	}
	return result;
}

/*
 * A malloc'd copy of the string, or NULL for NULL.
 */
char *
xstrdup(const char *string)
{
	size_t size;

	if (string == NULL)
		return NULL;
	size = strlen(string) + 1;
	return memcpy(xrealloc(NULL, size), string, size);
}

/*
 * printf() into a malloc'd string.
 */
char *
format_text(const char *fmt, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
	{
		log_line("out of memory");
		_exit(EXIT_INTERNAL);
	}
	va_end(args);
	return text;
}

/*
 * A malloc'd string of the bytes that the database will accept: a character
 * that was cut at the front is dropped; if what remains is not UTF-8, all but
 * ASCII becomes '?'.  NUL bytes become '?' as well.
 */
char *
clean_text(const char *bytes, size_t length)
{
	char *text;
	json_t *check;
	size_t i;

	while (length > 0 && ((unsigned char) *bytes & 0xC0) == 0x80)
	{
		bytes++;
		length--;
	}

	text = xrealloc(NULL, length + 1);
	for (i = 0; i < length; i++)
		text[i] = bytes[i] == '\0' ? '?' : bytes[i];
	text[length] = '\0';

	check = json_string(text);
	if (check == NULL)
	{
		for (i = 0; i < length; i++)
			if ((unsigned char) text[i] >= 0x80)
				text[i] = '?';
	}
	json_decref(check);
	return text;
}
