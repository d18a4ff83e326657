/*
 * sim_launch.c
 *	  The pods' containers: process groups of this machine that run the --launch command.
 *
 * Works by comparing: a pod that should run and does not is launched, one that runs and should not
 * is ended, one whose command has exited is launched again. All of it happens in the clock thread,
 * which is the processes' parent and with whose end the kernel ends them too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define TICK_NANOSECONDS (10 * 1000 * 1000)
/* Seconds before a command that exited is launched again. */
#define RELAUNCH_DELAY 0.2
/* Seconds from SIGTERM to SIGKILL. */
#define KILL_DELAY 5.0

/* The process group of a pod's container. The pod has no other until this one is gone. */
struct SimGroup
{
	pid_t pid; /* of its leader, and the group's id */
	SimPod *pod;
	int start;		/* which of the pod's starts it belongs to */
	bool exited;	/* its leader was waited for */
	bool ending;	/* it was asked to end */
	double kill_at; /* on the machine's clock; INFINITY: it was killed */
	TAILQ_ENTRY(SimGroup) link;
};

static TAILQ_HEAD(, SimGroup) groups = TAILQ_HEAD_INITIALIZER(groups);

extern char **environ;

/* The id of a group's leader; 0 for none. */
pid_t
sim_group_pid(const SimGroup *group)
{
	return group != NULL ? group->pid : 0;
}

/* Set a variable of a pod's environment. */
static void
set_variable(json_t *variables, const char *name, const char *value)
{
	json_object_set_new_nocheck(variables, name, json_string_nocheck(value));
}

/*
 * The environment of a pod's command, ended by NULL: ours, the pod's own, and what the provider
 * injects, each over the one before. One block of memory for each string and one for the array.
 */
static char **
make_environment(const SimPod *pod)
{
	json_t *variables = json_object();
	char **list;
	char number[16];
	const char *key;
	json_t *value;
	size_t n = 0;
	size_t i;

	for (char **entry = environ; *entry != NULL; entry++)
	{
		const char *equals = strchr(*entry, '=');
		char *name = equals != NULL ? strndup(*entry, (size_t) (equals - *entry)) : NULL;

		if (name != NULL)
			set_variable(variables, name, equals + 1);
		free(name);
	}
	json_object_update(variables, json_object_get(pod->spec, "env"));
	set_variable(variables, "RUNPOD_POD_ID", pod->id);
	set_variable(variables, "RUNPOD_DC_ID", pod->data_center->id);
	set_variable(variables, "RUNPOD_POD_HOSTNAME", pod->id);
	set_variable(variables, "RUNPOD_PUBLIC_IP", "127.0.0.1");
	set_variable(variables, "RUNPOD_API_KEY", pod->api_key);
	snprintf(number, sizeof(number), "%d", pod->no_gpus ? 0 : pod->gpu_count);
	set_variable(variables, "RUNPOD_GPU_COUNT", number);
	snprintf(number, sizeof(number), "%d", 8 * pod->gpu_count);
	set_variable(variables, "RUNPOD_CPU_COUNT", number);
	value = json_array_get(json_object_get(json_object_get(pod->spec, "mounts"), "network"), 0);
	if (value != NULL)
		set_variable(variables, "RUNPOD_VOLUME_ID",
					 json_string_value(json_object_get(value, "volumeId")));
	json_array_foreach(json_object_get(pod->spec, "ports"), i, value)
	{
		char name[64];
		char *rest;
		long port = strtol(json_string_value(value), &rest, 10);

		if (strcmp(rest, "/tcp") != 0)
			continue;
		snprintf(name, sizeof(name), "RUNPOD_TCP_PORT_%ld", port);
		snprintf(number, sizeof(number), "%ld", port);
		set_variable(variables, name, number);
	}

	list = sim_alloc(sizeof(char *) * (json_object_size(variables) + 1));
	json_object_foreach(variables, key, value)
	{
		const char *text = json_string_value(value);
		size_t size = strlen(key) + strlen(text) + 2;

		list[n] = sim_alloc(size);
		snprintf(list[n++], size, "%s=%s", key, text);
	}
	json_decref(variables);
	return list;
}

/* Become the command: in a group of its own, with our standard error for all that it prints. */
static void
run_command(char **environment, pid_t parent)
{
	char *arguments[] = { "sh", "-c", (char *) sim.launch, NULL };
	sigset_t none;
	int null;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	null = open("/dev/null", O_RDONLY);
	dup2(null, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (null > STDERR_FILENO)
		close(null);
	execve("/bin/sh", arguments, environment);
	_exit(127);
}

/* Launch a pod's command; where there is no process to be had, it is tried again. */
static void
launch(SimPod *pod)
{
	char **environment = make_environment(pod);
	pid_t self = getpid();
	pid_t pid = fork();
	SimGroup *group;

	if (pid == 0)
		run_command(environment, self);
	for (char **entry = environment; *entry != NULL; entry++)
		free(*entry);
	free(environment);
	pod->next_run = sim_mono() + RELAUNCH_DELAY;
	if (pid < 0)
		return;
	setpgid(pid, pid);
	group = sim_alloc(sizeof(SimGroup));
	group->pid = pid;
	group->pod = pod;
	group->start = pod->starts;
	TAILQ_INSERT_TAIL(&groups, group, link);
	pod->group = group;
	pod->container_at = sim_now();
	pod->runs++;
}

/* Send a group off: it is asked to end, and killed when its time is over. */
static void
end_group(SimGroup *group)
{
	kill(-group->pid, SIGTERM);
	group->ending = true;
	group->kill_at = sim_mono() + KILL_DELAY;
}

/* Note which leaders have exited. What is left of a container goes with its main process. */
static void
reap(void)
{
	SimGroup *group;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
	{
		TAILQ_FOREACH(group, &groups, link)
		{
			if (group->pid == pid)
				break;
		}
		if (group == NULL)
			continue;
		group->exited = true;
		if (group->ending)
			continue;
		group->pod->next_run = sim_mono() + RELAUNCH_DELAY;
		group->pod->container_at = sim_now();
		end_group(group);
		group->kill_at = 0;
	}
}

/* Kill the groups whose time is over, and forget those that are gone. */
static void
bury(void)
{
	double now = sim_mono();
	SimGroup *group;
	SimGroup *next;

	for (group = TAILQ_FIRST(&groups); group != NULL; group = next)
	{
		next = TAILQ_NEXT(group, link);
		if (!group->ending)
			continue;
		if (now >= group->kill_at)
		{
			kill(-group->pid, SIGKILL);
			group->kill_at = INFINITY;
		}
		if (group->exited &&
			(isinf(group->kill_at) || (kill(-group->pid, 0) != 0 && errno == ESRCH)))
		{
			TAILQ_REMOVE(&groups, group, link);
			group->pod->group = NULL;
			free(group);
		}
	}
}

/* Bring the processes in line with the pods. */
static void
compare(double now)
{
	SimGroup *group;
	SimPod *pod;

	TAILQ_FOREACH(group, &groups, link)
	{
		if (!group->ending &&
			(sim.stopping || !sim_pod_runs(group->pod, now) || group->start != group->pod->starts))
			end_group(group);
	}
	if (sim.launch == NULL || sim.stopping)
		return;
	TAILQ_FOREACH(pod, &sim.live, link)
	{
		if (pod->group == NULL && !pod->foreign && sim_pod_runs(pod, now) &&
			sim_mono() >= pod->next_run)
			launch(pod);
	}
}

/*
 * The clock thread: every few milliseconds lets go on what was held back, lets happen what is due,
 * and looks after the processes. Ends when the program stops and the last process is gone.
 */
void *
sim_clock_thread(void *unused)
{
	const struct timespec tick = { .tv_nsec = TICK_NANOSECONDS };
	bool done;

	(void) unused;
	/* What a command leaves behind becomes our child, so that its end is noticed at once. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	do
	{
		pthread_mutex_lock(&sim.lock);
		sim_http_release(false);
		sim_pods_tick(sim_now());
		reap();
		bury();
		compare(sim_now());
		done = sim.stopping && TAILQ_EMPTY(&groups);
		pthread_mutex_unlock(&sim.lock);
		if (!done)
			nanosleep(&tick, NULL);
	} while (!done);
	return NULL;
}
