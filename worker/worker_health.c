/*-------------------------------------------------------------------------
 *
 * worker_health.c
 *		Does gpu-orch-worker's handler work at all?  Looked at before the first
 *		task, and judged by how the handler ends.
 *
 * A worker whose handler fails everything must not empty the queue at the speed
 * of its failures.  What is known to be broken ends the worker; what only looks
 * so makes it wait longer between single tasks, until one succeeds.  A handler
 * that has done a task of this worker is not doubted for failures that it
 * blames on the tasks: then it is the tasks.  Runs in the main thread alone.
 * Must not touch a task's outcome.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

/* Different tasks in a row that the handler failed, until the worker waits between tasks. */
#define DOUBT_AFTER 3

/* Until it ends: those failed for the platform's fault, and those without a handler. */
#define BROKEN_AFTER 20
#define MISSING_AFTER 2

#define LONGEST_PAUSE 60.0 /* seconds between two tasks */

extern char **environ;

static bool proved = false;	 /* it has done a task */
static int platform_row = 0; /* tasks failed in a row, by whose fault it is */
static int task_row = 0;	 /* only counted until it is proved */
static char last_failed[24]; /* the task's id */

/*
 * Run the shell with these arguments and its standard output in text, cut to
 * size; returns its exit status, or -1 when it could not be run.
 */
static int
health_shell(char *const argv[], char *text, size_t size)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int ends[2];
	int status = -1;
	size_t length = 0;
	ssize_t got;
	pid_t pid;
	int error;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	error = posix_spawn(&pid, "/bin/sh", &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	close(ends[1]);
	while (error == 0 && length < size - 1 &&
		   (got = read(ends[0], text + length, size - 1 - length)) > 0)
		length += got;
	close(ends[0]);
	text[length] = '\0';
	if (error != 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/*
 * Why a file cannot be executed; malloc'd, NULL: nothing is wrong with it, as
 * far as can be seen.
 */
static char *
health_file_problem(const char *path)
{
	char line[512] = "";
	char *name;
	FILE *file;

	if (access(path, X_OK) != 0)
		return format_text("\"%s\": %s", path, strerror(errno));
	file = fopen(path, "re");
	if (file == NULL)
		return NULL;
	name = fgets(line, sizeof(line), file);
	fclose(file);
	if (name == NULL || strncmp(line, "#!", 2) != 0)
		return NULL;
	name = strtok(line + 2, " \t\r\n");
	if (name != NULL && access(name, X_OK) != 0)
		return format_text("\"%s\" names the interpreter \"%s\": %s", path, name, strerror(errno));
	return NULL;
}

/*
 * Why the handler cannot be run, without running it; malloc'd, NULL: nothing
 * speaks against it.  The shell must be able to read the command, and what it
 * names first, where that is a plain word, must be there.
 */
char *
health_handler_problem(void)
{
	char *handler = (char *) worker.opt.handler;
	char *const parse[] = { "sh", "-n", "-c", handler, NULL };
	char text[1024];
	char *problem;
	char *word;

	if (health_shell(parse, text, sizeof(text)) > 0)
		return format_text("the shell cannot read it: %s", text);
	if (strpbrk(handler, "|&;<>()$`\\\"'*?[]#~=%{}!\n") != NULL)
		return NULL;
	handler = xstrdup(handler);
	word = strtok(handler, " \t");
	if (strchr(word, '/') != NULL)
		problem = health_file_problem(word);
	else
	{
		char *const find[] = { "sh", "-c", "command -v -- \"$0\"", word, NULL };
		int status = health_shell(find, text, sizeof(text));

		text[strcspn(text, "\n")] = '\0';
		if (status > 0)
			problem = format_text("\"%s\" is no command here", word);
		else
			problem = status == 0 && text[0] == '/' ? health_file_problem(text) : NULL;
	}
	free(handler);
	return problem;
}

/*
 * The worker cannot work here and must end; takes over the malloc'd text, which
 * says why.
 */
static void
health_broken(char *why)
{
	pthread_mutex_lock(&worker.lock);
	if (worker.broken == NULL)
	{
		log_line("this worker cannot work here and ends: %s", why);
		worker.broken = why;
		why = NULL;
	}
	pthread_mutex_unlock(&worker.lock);
	free(why);
	state_wake_all();
}

/*
 * Let the next claim wait, the longer the more tasks failed, and be for one
 * task; with pause 0 claims are as usual again.
 */
static void
health_doubt(double pause)
{
	pthread_mutex_lock(&worker.lock);
	worker.doubted = pause > 0;
	worker.claim_after = pause > 0 ? clock_now() + jitter(pause) : 0;
	pthread_mutex_unlock(&worker.lock);
}

/*
 * Take note of how a handler ended, by itself, with a task; what says it in
 * words.  True when the worker is proved to be broken: then the task has not
 * even been tried.
 */
bool
health_note(const Task *task, HandlerEnd end, const char *what)
{
	bool another = strcmp(last_failed, task->task_id) != 0;
	int row;
	char *problem;

	if (end == HANDLER_WORKED)
	{
		if (worker.doubted)
			log_line("the handler works again");
		proved = true;
		platform_row = task_row = 0;
		last_failed[0] = '\0';
		health_doubt(0);
		return false;
	}

	snprintf(last_failed, sizeof(last_failed), "%s", task->task_id);
	if (end == HANDLER_MISSING && (problem = health_handler_problem()) != NULL)
	{
		health_broken(format_text("the handler cannot be run: %s", problem));
		free(problem);
		return true;
	}
	if (end == HANDLER_FAILED)
	{
		platform_row = 0;
		task_row += another && !proved;
	}
	else
		platform_row += another;

	row = platform_row > task_row ? platform_row : task_row;
	if (platform_row >= (end == HANDLER_MISSING ? MISSING_AFTER : BROKEN_AFTER))
		health_broken(
			format_text("%d tasks in a row failed for no fault of theirs, the last one: %s",
						platform_row, what));
	else if (row >= DOUBT_AFTER)
	{
		double pause = 1 << (row - DOUBT_AFTER < 6 ? row - DOUBT_AFTER : 6);

		if (!worker.doubted)
			log_line("the handler failed %d tasks in a row, the last one: %s; waiting longer "
					 "between tasks, up to %.15g s, until one succeeds",
					 row, what, LONGEST_PAUSE);
		health_doubt(pause < LONGEST_PAUSE ? pause : LONGEST_PAUSE);
	}
	return false;
}
