/*
 * sim_main.c
 *	  Entry of runpod-sim: the command line, the start, signals, the end.
 *
 * runpod-sim is a provider that costs nothing: it speaks the pod, catalog and billing parts of
 * RunPod's REST API v2 for tests and demonstrations, and fails on demand. It listens on loopback
 * addresses alone and keeps nothing on disk. The main thread waits for signals.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sim.h"

#define EXIT_BAD_USAGE 2

Sim sim = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.boot_seconds = 5,
	.page_size = 1000,
	.staged = true,
	.billing_lag = 3600,
	.quota = 1000000,
	.balance = 10000,
	.rules = TAILQ_HEAD_INITIALIZER(sim.rules),
	.live = TAILQ_HEAD_INITIALIZER(sim.live),
	.held = TAILQ_HEAD_INITIALIZER(sim.held),
};

static const char usage_text[] =
	"Usage: " PROGRAM_NAME " --listen 127.0.0.1:PORT --api-key KEY [OPTION]...\n"
	"A provider of pods that costs nothing.\n"
	"\n"
	"  --listen ADDRESS:PORT  where to listen, a loopback address; port 0: any\n"
	"  --api-key KEY          the account's key\n"
	"  --boot-seconds S       from a pod's start to its container (default 5)\n"
	"  --launch CMD           shell command that runs as a pod's container\n"
	"  --seed N               makes a run repeat (default: another each time)\n"
	"  --faults FILE          rules to begin with, as JSON\n"
	"  --paging               answer lists in pages\n"
	"  --page-size N          most pods on a page (default 1000)\n"
	"  --status-mode MODE     staged: PROVISIONING, STARTING, RUNNING (default);\n"
	"                         immediate: RUNNING at once, without a runtime\n"
	"  --billing-lag S        age at which billing history shows (default 3600)\n"
	"  --quota N              requests in a minute before 429 (default 1000000)\n"
	"  --help, --version      show this, or the version, and exit\n"
	"\n"
	"Prints \"listening on ADDRESS:PORT\" when it is ready. SIGTERM ends it and\n"
	"all that it launched. Tests speak to it below /_sim/.\n";

/* Complain about the command line, and exit. */
static void
bad_usage(const char *what, const char *detail)
{
	fprintf(stderr, PROGRAM_NAME ": %s%s%s\n", what, detail != NULL ? ": " : "",
			detail != NULL ? detail : "");
	fputs("Try \"" PROGRAM_NAME " --help\".\n", stderr);
	exit(EXIT_BAD_USAGE);
}

/* The number in an option's argument, within limits, or an exit. */
static double
number_option(const char *option, const char *argument, double least, double most)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(argument, &end);
	if (end == argument || *end != '\0' || errno != 0 || !(value >= least && value <= most))
	{
		fprintf(stderr, PROGRAM_NAME ": --%s must be a number from %.15g to %.15g, not \"%s\"\n",
				option, least, most, argument);
		exit(EXIT_BAD_USAGE);
	}
	return value;
}

/* Read the command line into sim; where to listen and the file of rules are handed back. */
static void
read_options(int argc, char **argv, const char **listen, const char **faults)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "api-key", required_argument, NULL, 'k' },
		{ "boot-seconds", required_argument, NULL, 'b' },
		{ "launch", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' },
		{ "faults", required_argument, NULL, 'f' },
		{ "paging", no_argument, NULL, 'p' },
		{ "page-size", required_argument, NULL, 'n' },
		{ "status-mode", required_argument, NULL, 'm' },
		{ "billing-lag", required_argument, NULL, 'g' },
		{ "quota", required_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	int place = 0;
	int option;

	sim.seed = (unsigned) getpid() ^ (unsigned) (sim_mono() * 1e6);
	while ((option = getopt_long(argc, argv, "", options, &place)) != -1)
	{
		const char *name = options[place].name;

		switch (option)
		{
			case 'l':
				*listen = optarg;
				break;
			case 'k':
				free(sim.api_key);
				sim.api_key = strdup(optarg);
				break;
			case 'b':
				sim.boot_seconds = number_option(name, optarg, 0, 1e6);
				break;
			case 'c':
				sim.launch = optarg;
				break;
			case 's':
				sim.seed = (unsigned) number_option(name, optarg, 0, 4294967295.0);
				break;
			case 'f':
				*faults = optarg;
				break;
			case 'p':
				sim.paging = true;
				break;
			case 'n':
				sim.page_size = (int) number_option(name, optarg, 1, 1000);
				break;
			case 'm':
				if (strcmp(optarg, "staged") != 0 && strcmp(optarg, "immediate") != 0)
					bad_usage("--status-mode must be staged or immediate", NULL);
				sim.staged = strcmp(optarg, "staged") == 0;
				break;
			case 'g':
				sim.billing_lag = number_option(name, optarg, 0, 1e9);
				break;
			case 'q':
				sim.quota = (long) number_option(name, optarg, 1, 1e9);
				break;
			case 'h':
				fputs(usage_text, stdout);
				exit(0);
			case 'v':
				puts(PROGRAM_NAME " " GPU_ORCH_VERSION);
				exit(0);
			default:
				bad_usage("unknown option or argument missing", NULL);
		}
	}
	if (optind < argc)
		bad_usage("unexpected argument", argv[optind]);
	if (*listen == NULL)
		bad_usage("--listen is missing", NULL);
	if (sim.api_key == NULL || sim.api_key[0] == '\0')
		bad_usage("--api-key is missing", NULL);
}

/* As many connections as the system grants. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 8192)
	{
		limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Free all state, so that what a leak checker finds is a leak. */
static void
free_all(void)
{
	while (!TAILQ_EMPTY(&sim.rules))
		sim_fault_drop(TAILQ_FIRST(&sim.rules));
	for (int i = 0; i < sim.n_pods; i++)
	{
		json_decref(sim.pods[i]->spec);
		free(sim.pods[i]->segments);
		free(sim.pods[i]);
	}
	free(sim.pods);
	json_decref(sim.pod_index);
	json_decref(sim.entries);
	free(sim.api_key);
	sim_catalog_stop();
}

int
main(int argc, char **argv)
{
	const char *listen = NULL;
	const char *faults = NULL;
	struct MHD_Daemon *http;
	pthread_t clock_thread;
	sigset_t signals;
	char error[512];
	char bound[128];
	int got;

	read_options(argc, argv, &listen, &faults);
	raise_file_limit();
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);

	sim_clock_start();
	sim_random_start(&sim.random, sim.seed);
	sim.pod_index = json_object();
	sim.entries = json_array();
	sim_catalog_start();
	if (faults != NULL && !sim_fault_load(faults, error, sizeof(error)))
	{
		fprintf(stderr, PROGRAM_NAME ": %s\n", error);
		free_all();
		return EXIT_BAD_USAGE;
	}
	http = sim_http_start(listen, bound, sizeof(bound));
	if (http == NULL || pthread_create(&clock_thread, NULL, sim_clock_thread, NULL) != 0)
		return 1;
	printf("listening on %s\n", bound);
	fflush(stdout);

	sigwait(&signals, &got);
	pthread_mutex_lock(&sim.lock);
	sim.stopping = true;
	sim_http_release(true);
	pthread_mutex_unlock(&sim.lock);
	MHD_stop_daemon(http);
	pthread_join(clock_thread, NULL);
	free_all();
	return 0;
}
