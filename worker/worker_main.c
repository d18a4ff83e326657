/*-------------------------------------------------------------------------
 *
 * worker_main.c
 *		Entry of gpu-orch-worker: options, environment, the threads, signals.
 *
 * The main thread keeps the handlers' processes (worker_task.c) and waits for
 * signals; it never waits for the database.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

static const char usage_text[] =
	"Usage: " PROGRAM_NAME " --handler CMD [OPTION]...\n"
	"Claim tasks from a database with gpu_orch and run CMD for each.\n"
	"\n"
	"  --handler CMD         shell command that does one task\n"
	"  --kind K              a kind to serve, may be repeated (default: as the\n"
	"                        capabilities say, every kind if they say nothing)\n"
	"  --capabilities FILE   JSON object to register with\n"
	"  --concurrency N       tasks at the same time (default 1)\n"
	"  --once                exit after one task\n"
	"  --pool P              pool to register in\n"
	"  --poll SECONDS        time between claims while idle (default 2)\n"
	"  --max-output BYTES    largest result of a handler (default 1048576)\n"
	"  --no-listen           do not LISTEN for work, as behind a pooler\n"
	"  --dead-man SECONDS    without a database for so long, have the provider delete\n"
	"                        the pod that this runs on, and exit; 0: never (default\n"
	"                        1800 on a pod that the leader made, else 0)\n"
	"  --api-url URL         the provider's (default https://api.runpod.io/v2)\n"
	"  --help, --version     show this, or the version, and exit\n"
	"\n"
	"Environment: GPU_ORCH_DSN or PG* (connection), GPU_ORCH_WORKER_ID,\n"
	"GPU_ORCH_TOKEN (registration token), GPU_ORCH_INSTALLATION (who made the pod),\n"
	"RUNPOD_POD_ID, RUNPOD_API_KEY (the pod's own, to delete it).\n"
	"\n"
	"CMD reads the task as JSON from standard input, writes its result as JSON to\n"
	"standard output and progress lines like {\"fraction\": 0.4, \"stage\": \"x\"} to\n"
	"descriptor 3. Exit status 0: succeeded, 75: try again elsewhere, 65: rejected\n"
	"for good, 126 or 127: this worker cannot run it, any other: failed.\n";

/*
 * Complain about the command line or the environment, and exit.
 */
static void
bad_usage(int code, const char *what, const char *detail)
{
	fprintf(stderr, PROGRAM_NAME ": %s%s%s\n", what, detail != NULL ? ": " : "",
			detail != NULL ? detail : "");
	if (code == EXIT_BAD_USAGE)
		fprintf(stderr, "Try \"" PROGRAM_NAME " --help\".\n");
	exit(code);
}

/*
 * The number in an option's argument, within limits, or an exit.
 */
static double
number_option(const char *option, const char *argument, double least, double most)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(argument, &end);
	if (argument[strspn(argument, "0123456789.")] != '\0' || end == argument || *end != '\0' ||
		errno != 0 || !(value >= least && value <= most))
	{
		fprintf(stderr, PROGRAM_NAME ": %s must be a number from %.15g to %.15g, not \"%s\"\n",
				option, least, most, argument);
		exit(EXIT_BAD_USAGE);
	}
	return value;
}

/*
 * The same for a whole number.
 */
static long
whole_option(const char *option, const char *argument, long least, long most)
{
	double value = number_option(option, argument, least, most);

	if (value != (long) value)
	{
		fprintf(stderr, PROGRAM_NAME ": %s must be a whole number, not \"%s\"\n", option, argument);
		exit(EXIT_BAD_USAGE);
	}
	return (long) value;
}

/*
 * The name in an option's argument, as the server accepts one, or an exit.  An
 * empty one mostly comes from a variable that is not set.
 */
static const char *
name_option(const char *option, const char *argument)
{
	const char *wrong = NULL;
	json_t *check = json_string(argument);

	if (argument[strspn(argument, " \t")] == '\0')
		wrong = "is empty";
	else if (check == NULL)
		wrong = "is not UTF-8";
	else if (strlen(argument) > MAX_NAME)
		wrong = "is too long";
	for (const char *c = argument; wrong == NULL && *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			wrong = "holds a control character";
	json_decref(check);
	if (wrong != NULL)
	{
		fprintf(stderr, PROGRAM_NAME ": the value of %s %s\n", option, wrong);
		exit(EXIT_BAD_USAGE);
	}
	return argument;
}

/*
 * The text in an option's argument, or an exit where there is none.
 */
static const char *
text_option(const char *option, const char *argument)
{
	if (argument[strspn(argument, " \t\r\n")] == '\0')
	{
		fprintf(stderr, PROGRAM_NAME ": the value of %s is empty\n", option);
		exit(EXIT_BAD_USAGE);
	}
	return argument;
}

/*
 * An environment variable's value, NULL when unset or empty.
 */
static const char *
variable(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && *value != '\0' ? value : NULL;
}

/*
 * Take a secret out of the environment: a malloc'd copy, or NULL.  The
 * original is overwritten, since /proc shows it for the process's whole life.
 */
static char *
take_secret(const char *name)
{
	char *value = getenv(name);
	char *copy = NULL;

	if (value == NULL)
		return NULL;
	if (*value != '\0')
		copy = xstrdup(value);
	memset(value, 0, strlen(value));
	unsetenv(name);
	return copy;
}

/*
 * The JSON object in a file, or an exit.
 */
static json_t *
read_capabilities(const char *path)
{
	json_error_t error;
	json_t *object = json_load_file(path, 0, &error);

	if (object == NULL)
	{
		fprintf(stderr, PROGRAM_NAME ": capabilities file \"%s\", line %d: %s\n", path, error.line,
				error.text);
		exit(EXIT_BAD_CONFIG);
	}
	if (!json_is_object(object))
		bad_usage(EXIT_BAD_CONFIG, "capabilities file does not hold a JSON object", path);
	return object;
}

/*
 * Fill in worker.opt from the command line.
 */
static void
read_options(int argc, char **argv)
{
	static const struct option options[] = { { "handler", required_argument, NULL, 'H' },
											 { "kind", required_argument, NULL, 'k' },
											 { "capabilities", required_argument, NULL, 'C' },
											 { "concurrency", required_argument, NULL, 'c' },
											 { "once", no_argument, NULL, '1' },
											 { "pool", required_argument, NULL, 'P' },
											 { "poll", required_argument, NULL, 'p' },
											 { "max-output", required_argument, NULL, 'm' },
											 { "no-listen", no_argument, NULL, 'n' },
											 { "dead-man", required_argument, NULL, 'd' },
											 { "api-url", required_argument, NULL, 'u' },
											 { "help", no_argument, NULL, 'h' },
											 { "version", no_argument, NULL, 'V' },
											 { NULL, 0, NULL, 0 } };
	Options *opt = &worker.opt;
	json_t *capabilities = json_object();
	json_t *kinds = json_array();
	int option;

	opt->concurrency = 1;
	opt->listen = true;
	opt->poll = 2;
	opt->max_output = 1024 * 1024;
	opt->dead_man = -1;
	opt->api_url = "https://api.runpod.io/v2";

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (option)
		{
			case 'H':
				opt->handler = text_option("--handler", optarg);
				break;
			case 'k':
				json_array_append_new(kinds, json_string(name_option("--kind", optarg)));
				break;
			case 'C':
				json_decref(capabilities);
				capabilities = read_capabilities(text_option("--capabilities", optarg));
				break;
			case 'c':
				opt->concurrency = (int) whole_option("--concurrency", optarg, 1, MAX_CONCURRENCY);
				break;
			case '1':
				opt->once = true;
				break;
			case 'P':
				opt->pool = name_option("--pool", optarg);
				break;
			case 'p':
				opt->poll = number_option("--poll", optarg, 0.01, 3600);
				break;
			case 'm':
				opt->max_output = (size_t) whole_option("--max-output", optarg, 1, 1 << 30);
				break;
			case 'n':
				opt->listen = false;
				break;
			case 'd':
				opt->dead_man = number_option("--dead-man", optarg, 0, 7 * 86400);
				break;
			case 'u':
				opt->api_url = text_option("--api-url", optarg);
				break;
			case 'h':
				fputs(usage_text, stdout);
				exit(0);
			case 'V':
				puts(PROGRAM_NAME " " GPU_ORCH_VERSION);
				exit(0);
			default:
				bad_usage(EXIT_BAD_USAGE, "bad command line", NULL);
		}
	}
	if (optind < argc)
		bad_usage(EXIT_BAD_USAGE, "unexpected argument", argv[optind]);
	if (opt->handler == NULL)
		bad_usage(EXIT_BAD_USAGE, "--handler is missing", NULL);
	opt->capabilities = gpu_capabilities(capabilities, kinds);
}

/*
 * Fill in worker.opt from the environment, out of which the secrets vanish.
 */
static void
read_environment(void)
{
	static char default_id[128];
	uint32_t unique[2];
	Options *opt = &worker.opt;

	/* our memory holds tokens: no core file, no look by others under our user id */
	prctl(PR_SET_DUMPABLE, 0);

	opt->dsn = take_secret("GPU_ORCH_DSN");
	opt->password = take_secret("PGPASSWORD");
	opt->registration_token = take_secret("GPU_ORCH_TOKEN");
	opt->pod_id = variable("RUNPOD_POD_ID");
	opt->installation = variable("GPU_ORCH_INSTALLATION");
	opt->worker_id = variable("GPU_ORCH_WORKER_ID");
	if (opt->worker_id == NULL)
	{
		char host[64] = "";

		/* hosts share names, and containers process ids */
		gethostname(host, sizeof(host) - 1);
		if (getrandom(unique, sizeof(unique), 0) != sizeof(unique))
			bad_usage(EXIT_INTERNAL, "there are no random numbers to make a worker id of", NULL);
		snprintf(default_id, sizeof(default_id), "%s-%08x%08x", host, unique[0], unique[1]);
		opt->worker_id = default_id;
	}
	if (opt->dsn != NULL && !db_dsn_valid(opt->dsn))
		bad_usage(EXIT_BAD_CONFIG, "GPU_ORCH_DSN is not a valid connection string", NULL);
}

/*
 * Block the signals that we take from a descriptor, for all threads to come
 * (NVIDIA's library may start some), and return that descriptor.
 */
static int
signals_init(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/*
 * Take the signals that came; true when this worker was told for the second
 * time to end, and shall do it at once.
 */
static bool
signals_take(int signal_fd)
{
	struct signalfd_siginfo info;
	bool at_once = false;

	while (read(signal_fd, &info, sizeof(info)) == sizeof(info))
	{
		if (info.ssi_signo == SIGCHLD)
			continue;
		pthread_mutex_lock(&worker.lock);
		at_once = worker.drain_asked;
		worker.stop_asked |= at_once;
		worker.drain_asked = true;
		pthread_mutex_unlock(&worker.lock);
		log_line(at_once ? "second signal: stopping at once" : "signal: draining");
		state_wake_all();
	}
	return at_once;
}

/*
 * Keep the handlers going until the work is done and the server knows it, or the
 * program must end; returns the exit code.  A stop that cannot release its leases in time leaves
 * them to the heartbeat timeout.
 */
static int
main_loop(int signal_fd)
{
	struct pollfd *fds = xrealloc(NULL, (2 + 4 * worker.opt.concurrency) * sizeof(*fds));
	double stop_at = 0;
	double leave_by = 0;
	bool kill_now = false;
	int code = -1;

	while (code < 0)
	{
		double wait = task_next_due();
		bool stopping;
		eventfd_t ignored;
		int count;

		fds[0] = (struct pollfd){ .fd = signal_fd, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = worker.main_wake, .events = POLLIN };
		count = 2 + task_poll_fds(fds + 2);
		if (dead_man_due() < wait)
			wait = dead_man_due();
		if (stop_at != 0 && stop_at - clock_now() < wait)
			wait = stop_at - clock_now();
		if (leave_by != 0 && leave_by - clock_now() < wait)
			wait = leave_by - clock_now();
		poll(fds, count, wait > 0 ? (int) (wait * 1000) + 1 : 0);

		eventfd_read(worker.main_wake, &ignored);
		kill_now |= signals_take(signal_fd);
		if (dead_man_due() <= 0 && stop_at == 0 && dead_man_end_pod())
			state_exit(EXIT_NOT_HEARD);

		pthread_mutex_lock(&worker.lock);
		stopping = worker.stop_asked || worker.exit_code >= 0;
		worker.stop_asked = stopping;
		pthread_mutex_unlock(&worker.lock);
		if (stopping && stop_at == 0)
			stop_at = clock_now() + FORCED_STOP_LIMIT;

		task_step(kill_now);

		pthread_mutex_lock(&worker.lock);
		if (state_finished())
		{
			if (leave_by == 0)
				leave_by = clock_now() + GOODBYE_LIMIT;
			worker.leaving = true;
			if (worker.exit_code >= 0)
				code = worker.exit_code;
			else if (worker.left || !worker.session.live || clock_now() >= leave_by)
				code = worker.broken != NULL ? EXIT_BROKEN : 0;
			wake(worker.queue_wake);
		}
		else if (stop_at != 0 && clock_now() >= stop_at)
			code = worker.exit_code >= 0 ? worker.exit_code : EXIT_STOP_FORCED;
		pthread_mutex_unlock(&worker.lock);
	}
	free(fds);
	return code;
}

/*
 * End a thread; false when it does not end soon, as one that waits for a
 * database that does not answer.
 */
static bool
end_thread(pthread_t thread)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 2;
	return pthread_timedjoin_np(thread, NULL, &limit) == 0;
}

/*
 * Run the threads, and the main loop beside them; returns the exit code.
 */
static int
run(int signal_fd)
{
	pthread_t queue;
	pthread_t heartbeat;
	int code;
	int i;

	worker.slots = xrealloc(NULL, worker.opt.concurrency * sizeof(Slot));
	memset(worker.slots, 0, worker.opt.concurrency * sizeof(Slot));
	for (i = 0; i < worker.opt.concurrency; i++)
	{
		worker.slots[i].number = i;
		state_free_slot(&worker.slots[i]);
	}
	task_init();

	if (pthread_create(&queue, NULL, queue_thread, NULL) != 0 ||
		pthread_create(&heartbeat, NULL, heartbeat_thread, NULL) != 0)
	{
		log_line("could not start a thread");
		return EXIT_INTERNAL;
	}

	code = main_loop(signal_fd);

	pthread_mutex_lock(&worker.lock);
	worker.quit = true;
	pthread_mutex_unlock(&worker.lock);
	state_wake_all();
	log_line("exiting with status %d", code);
	if (!end_thread(queue) || !end_thread(heartbeat))
		_exit(code);
	task_free();
	state_free();
	return code;
}

int
main(int argc, char **argv)
{
	const char *problem;
	int signal_fd;

	/* descriptors 0, 1 and 2 must be open, or a pipe would take their place */
	while (open("/dev/null", O_RDWR) < STDERR_FILENO)
		;

	srandom((unsigned int) (time(NULL) ^ (getpid() << 16)));
	state_init();
	signal_fd = signals_init();
	read_environment();
	read_options(argc, argv);
	problem = dead_man_init();
	if (problem != NULL)
		bad_usage(EXIT_BAD_CONFIG, "--dead-man and --api-url cannot be used", problem);
	problem = health_handler_problem();
	if (problem != NULL)
		bad_usage(EXIT_BAD_CONFIG, "the handler cannot be run", problem);
	return run(signal_fd);
}
