/*
 * sweep_main.c
 *	  Entry of gpu-orch-sweep: the command line, the key, the exit status.
 *
 * gpu-orch-sweep ends the pods of an installation whose database is gone. It needs no database and
 * keeps nothing. Must end nothing unless --delete is given.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "http/url.h"
#include "decide/pod_name.h"
#include "sweep.h"

typedef struct Options
{
	const char *installation;
	const char *key_file;
	const char *api_url;
	bool end_them;
	int wait;
} Options;

static const char usage_text[] =
	"Usage: " PROGRAM_NAME " --installation ID --api-key-file FILE [OPTION]...\n"
	"Show the pods of a gpu_orch installation whose database is gone, or end them.\n"
	"\n"
	"  --installation ID    all 32 hex digits of the installation's id\n"
	"  --api-key-file FILE  file that holds the provider's API key; yours or root's,\n"
	"                       and closed to all others\n"
	"  --api-url URL        the provider (default " DEFAULT_API_URL ")\n"
	"  --delete             end the pods; without it they are only shown\n"
	"  --wait SECONDS       try for so long (default 300)\n"
	"  --help, --version    show this, or the version, and exit\n"
	"\n"
	"A living database takes pods that are ended here for lost and replaces them:\n"
	"use --delete only when the database is gone, or with gpu_orch.enabled off.\n"
	"Pods are taken however young they are. A create that was under way may show\n"
	"up late: look again after ten minutes.\n"
	"\n"
	"Exit status: 0 nothing is left, or nothing was to be ended; 1 pods are left;\n"
	"2 bad usage or key file; 3 the provider could not be read.\n";

/* Complain about the command line or the key file, and exit. */
static void
bad_usage(const char *what, const char *detail)
{
	fprintf(stderr, PROGRAM_NAME ": %s%s%s\n", what, detail != NULL ? ": " : "",
			detail != NULL ? detail : "");
	fputs("Try \"" PROGRAM_NAME " --help\".\n", stderr);
	exit(EXIT_BAD_USAGE);
}

/* The whole number in an option's argument, within limits, or an exit. */
static int
number_option(const char *option, const char *argument, long least, long most)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(argument, &end, 10);
	if (end == argument || *end != '\0' || errno != 0 || value < least || value > most)
	{
		fprintf(stderr, PROGRAM_NAME ": %s is not a whole number from %ld to %ld\n", option, least,
				most);
		bad_usage("bad argument", argument);
	}
	return (int) value;
}

/* Is everything there, and of the right form? Exits otherwise. */
static void
check_options(const Options *options)
{
	if (options->installation == NULL)
		bad_usage("--installation is missing", NULL);
	if (!pod_name_installation_valid(options->installation))
		bad_usage("--installation must be all 32 lower-case hex digits of the id",
				  "see GPU_ORCH_INSTALLATION in the environment of any of its pods, or \"id\" of "
				  "gpu_orch.installation in a dump");
	if (options->key_file == NULL)
		bad_usage("--api-key-file is missing", NULL);
	if (http_url_problem(options->api_url, true) != NULL)
		bad_usage("--api-url is refused", http_url_problem(options->api_url, true));
}

/* Read the command line. */
static void
read_options(int argc, char **argv, Options *options)
{
	static const struct option known[] = {
		{ "installation", required_argument, NULL, 'i' },
		{ "api-key-file", required_argument, NULL, 'k' },
		{ "api-url", required_argument, NULL, 'u' },
		{ "delete", no_argument, NULL, 'd' },
		{ "wait", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
	{
		switch (option)
		{
			case 'i':
				options->installation = optarg;
				break;
			case 'k':
				options->key_file = optarg;
				break;
			case 'u':
				options->api_url = optarg;
				break;
			case 'd':
				options->end_them = true;
				break;
			case 'w':
				options->wait = number_option("--wait", optarg, 1, 86400);
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
	check_options(options);
}

/* The end of the program when memory is gone. */
void
out_of_memory(void)
{
	fputs(PROGRAM_NAME ": out of memory\n", stderr);
	exit(EXIT_UNREAD);
}

/* realloc() that ends the program when memory is gone. */
void *
xrealloc(void *pointer, size_t size)
{
	void *result = realloc(pointer, size);

	if (result == NULL)
		out_of_memory();
	return result;
}

/* printf() into a malloc'd string. */
char *
format_text(const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		out_of_memory();
	va_end(args);
	return text;
}

int
main(int argc, char **argv)
{
	Options options = { .api_url = DEFAULT_API_URL, .wait = 300 };
	char key[MAX_KEY_BYTES + 1];
	const char *problem;
	bool started;
	int status;

	/* Our memory will hold the key: no core file, no look by others under our user id. */
	prctl(PR_SET_DUMPABLE, 0);
	/* Neither a reader of our output nor a server that hangs up ends us half way. */
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_options(argc, argv, &options);
	problem = key_read(options.key_file, key);
	if (problem != NULL)
	{
		explicit_bzero(key, sizeof(key));
		fprintf(stderr, PROGRAM_NAME ": key file \"%s\" cannot be used: %s\n", options.key_file,
				problem);
		return EXIT_BAD_USAGE;
	}
	started = http_start(options.api_url, key, options.wait);
	explicit_bzero(key, sizeof(key));
	if (started)
		status = rounds_run(options.installation, options.end_them);
	else
	{
		fputs(PROGRAM_NAME ": libcurl cannot be used\n", stderr);
		status = EXIT_UNREAD;
	}
	http_stop();
	return status;
}
