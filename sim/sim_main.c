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
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sim.h"

#define EXIT_BAD_USAGE 2
#define MAX_PEM_BYTES 65536
/* How often the main thread looks whether the port is to be closed. */
#define LOOK_NANOSECONDS (20 * 1000 * 1000)

Sim sim = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.boot_seconds = 5,
	.provision_seconds = -1,
	.port_seconds = 1,
	.page_size = 1000,
	.staged = true,
	.exited_costs = true,
	.billing_lag = 3600,
	.quota = 1000000,
	.balance = 10000,
	.rules = TAILQ_HEAD_INITIALIZER(sim.rules),
	.live = TAILQ_HEAD_INITIALIZER(sim.live),
	.held = TAILQ_HEAD_INITIALIZER(sim.held),
	.later = TAILQ_HEAD_INITIALIZER(sim.later),
};

static const char usage_text[] =
	"Usage: " PROGRAM_NAME " --listen 127.0.0.1:PORT --api-key KEY [OPTION]...\n"
	"A provider of pods that costs nothing.\n"
	"\n"
	"  --listen ADDRESS:PORT  where to listen, a loopback address; port 0: any\n"
	"  --api-key KEY          the account's key\n"
	"  --launch CMD           shell command that runs as a pod's container\n"
	"  --seed N               makes a run repeat (default: another each time)\n"
	"  --manual-clock         the clock stands still but for what tests move it\n"
	"  --faults FILE          rules to begin with, as JSON\n"
	"  --boot-seconds S       from a pod's start to its container (default 5)\n"
	"  --provision-seconds S  of these PROVISIONING (default a third)\n"
	"  --port-seconds S       from the container to its public ports (default 1)\n"
	"  --status-mode MODE     staged: PROVISIONING, STARTING, RUNNING (default);\n"
	"                         immediate: RUNNING at once, without a runtime\n"
	"  --exited-cost MODE     cost of an EXITED pod: same (default) or zero\n"
	"  --paging               answer lists in pages\n"
	"  --page-size N          most pods on a page (default 1000)\n"
	"  --billing-lag S        age at which billing history shows (default 3600)\n"
	"  --spend-limit DOLLARS  most that pods may cost in an hour (default none)\n"
	"  --quota N              requests in a minute before 429 (default 1000000)\n"
	"  --rest-v1 MODE         below /v1: gone (default) or working\n"
	"  --tls-cert FILE, --tls-key FILE  speak TLS, with this certificate\n"
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

/* Which of two words an option's argument is: true for the first. Exits if it is neither. */
static bool
choice_option(const char *option, const char *argument, const char *yes, const char *no)
{
	if (strcmp(argument, yes) == 0 || strcmp(argument, no) == 0)
		return strcmp(argument, yes) == 0;
	fprintf(stderr, PROGRAM_NAME ": --%s must be %s or %s, not \"%s\"\n", option, yes, no,
			argument);
	exit(EXIT_BAD_USAGE);
}

/* The text of the file in an option's argument, or an exit. */
static char *
file_option(const char *option, const char *argument)
{
	FILE *file = fopen(argument, "r");
	char *text;

	if (file == NULL)
	{
		fprintf(stderr, PROGRAM_NAME ": --%s: cannot read \"%s\"\n", option, argument);
		exit(EXIT_BAD_USAGE);
	}
	text = sim_alloc(MAX_PEM_BYTES + 1);
	text[fread(text, 1, MAX_PEM_BYTES, file)] = '\0';
	fclose(file);
	return text;
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
		{ "provision-seconds", required_argument, NULL, 'P' },
		{ "port-seconds", required_argument, NULL, 'o' },
		{ "exited-cost", required_argument, NULL, 'e' },
		{ "spend-limit", required_argument, NULL, 'L' },
		{ "rest-v1", required_argument, NULL, '1' },
		{ "manual-clock", no_argument, NULL, 'M' },
		{ "tls-cert", required_argument, NULL, 'C' },
		{ "tls-key", required_argument, NULL, 'K' },
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
				sim.staged = choice_option(name, optarg, "staged", "immediate");
				break;
			case 'P':
				sim.provision_seconds = number_option(name, optarg, 0, 1e6);
				break;
			case 'o':
				sim.port_seconds = number_option(name, optarg, 0, 1e6);
				break;
			case 'e':
				sim.exited_costs = choice_option(name, optarg, "same", "zero");
				break;
			case 'L':
				sim.spend_limit = number_option(name, optarg, 0.01, 1e9);
				break;
			case '1':
				sim.rest_v1 = choice_option(name, optarg, "working", "gone");
				break;
			case 'M':
				sim.manual_clock = true;
				break;
			case 'C':
				sim.tls_cert = file_option(name, optarg);
				break;
			case 'K':
				sim.tls_key = file_option(name, optarg);
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
	if ((sim.tls_cert == NULL) != (sim.tls_key == NULL))
		bad_usage("--tls-cert and --tls-key belong together", NULL);
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
		sim_rule_drop(TAILQ_FIRST(&sim.rules));
	for (int i = 0; i < sim.n_pods; i++)
	{
		json_decref(sim.pods[i]->spec);
		free(sim.pods[i]->segments);
		free(sim.pods[i]);
	}
	free(sim.pods);
	for (long i = 0; i < sim.n_records; i++)
	{
		free(sim.records[i]->path);
		free(sim.records[i]);
	}
	free(sim.records);
	sim_later_stop();
	json_decref(sim.pod_index);
	json_decref(sim.entries);
	free(sim.api_key);
	free(sim.tls_cert);
	free(sim.tls_key);
	sim_catalog_stop();
}

/* Seconds for which a test wants the port closed; 0: not. Takes the lock. */
static double
take_refusal(void)
{
	double seconds;

	pthread_mutex_lock(&sim.lock);
	seconds = sim.refuse_seconds;
	sim.refuse_seconds = 0;
	pthread_mutex_unlock(&sim.lock);
	return seconds;
}

/*
 * Serve until a signal says that it is enough; close the port for a while when a test wants that,
 * until then or SIGUSR1. The listener at the end, or NULL.
 */
static struct MHD_Daemon *
serve(struct MHD_Daemon *http, const char *address, const sigset_t *signals)
{
	char bound[128];
	const struct timespec look = { .tv_nsec = LOOK_NANOSECONDS };
	double open_at = 0;

	for (;;)
	{
		int got = sigtimedwait(signals, NULL, &look);
		double seconds = take_refusal();

		if (got > 0 && got != SIGUSR1)
			return http;
		if (http != NULL && seconds > 0)
		{
			sim_http_stop(http);
			http = NULL;
			open_at = sim_mono() + seconds;
		}
		else if (http == NULL && (got == SIGUSR1 || sim_mono() >= open_at) &&
				 (http = sim_http_start(address, bound, sizeof(bound))) == NULL)
			return NULL;
	}
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

	read_options(argc, argv, &listen, &faults);
	raise_file_limit();
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);

	sim_clock_start();
	sim_random_start(&sim.random, sim.seed);
	sim_random_start(&sim.request_ids, sim.seed + 1);
	sim.pod_index = json_object();
	sim.entries = json_array();
	sim_catalog_start();
	if (faults != NULL && !sim_rule_load(faults, error, sizeof(error)))
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

	http = serve(http, bound, &signals);
	pthread_mutex_lock(&sim.lock);
	sim.stopping = true;
	pthread_mutex_unlock(&sim.lock);
	if (http != NULL)
		sim_http_stop(http);
	pthread_join(clock_thread, NULL);
	free_all();
	return 0;
}
