/*
 * sim_util.c
 *	  Clocks, random numbers, and the two ways to answer a request.
 *
 * Must not know of pods, rules or routes.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sim.h"

/* Where a clock begins that stands still: 2026-01-01. */
#define MANUAL_START 1767225600.0

static double clock_origin; /* sim_now() less sim_mono(), before any advance */

static double
read_clock(clockid_t id)
{
	struct timespec time;

	clock_gettime(id, &time);
	return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

/* The machine's clock: seconds, never set back. Needs no lock. */
double
sim_mono(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

/* Bind the provider's clock to the time of day, once at the start. Needs no lock. */
void
sim_clock_start(void)
{
	clock_origin = read_clock(CLOCK_REALTIME) - sim_mono();
}

/* The provider's clock: seconds since 1970. */
double
sim_now(void)
{
	if (sim.as_of > 0)
		return sim.as_of;
	return (sim.manual_clock ? MANUAL_START : clock_origin + sim_mono()) + sim.advanced;
}

/* A time as the provider writes it (RFC 3339, milliseconds, UTC); null for 0. New reference. */
json_t *
sim_time_json(double time)
{
	time_t seconds = (time_t) floor(time);
	struct tm parts;
	char text[40];

	if (time == 0)
		return json_null();
	gmtime_r(&seconds, &parts);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
	return json_sprintf("%s.%03dZ", text, (int) ((time - floor(time)) * 1000));
}

/* Read a time in UTC as the provider accepts it. False if it is none. */
bool
sim_time_parse(const char *text, double *time)
{
	struct tm parts = { 0 };
	char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
	double fraction = 0;

	if (rest == NULL)
		return false;
	if (*rest == '.')
		fraction = strtod(rest, &rest);
	if (strcmp(rest, "Z") != 0)
		return false;
	*time = (double) timegm(&parts) + fraction;
	return true;
}

/* Start a stream that is the same for the same seed. Needs no lock. */
void
sim_random_start(SimRandom *random, unsigned seed)
{
	memset(random, 0, sizeof(*random));
	initstate_r(seed, random->state, sizeof(random->state), &random->data);
}

/* A number from 0 to less than 1. */
double
sim_random_fraction(SimRandom *random)
{
	int32_t value;

	random_r(&random->data, &value);
	return value / (RAND_MAX + 1.0);
}

/* Fill out with len letters of the alphabet and a closing zero. */
void
sim_random_text(SimRandom *random, const char *alphabet, char *out, int len)
{
	size_t letters = strlen(alphabet);

	for (int i = 0; i < len; i++)
		out[i] = alphabet[(size_t) (sim_random_fraction(random) * (double) letters)];
	out[len] = '\0';
}

/* Is word one of the words that are parted by spaces? Needs no lock. */
bool
sim_word_in(const char *word, const char *words)
{
	size_t len = strlen(word);

	if (len == 0 || strchr(word, ' ') != NULL)
		return false;
	for (const char *at = words; (at = strstr(at, word)) != NULL; at++)
		if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
			return true;
	return false;
}

/* Zeroed memory, or the end of the program. Needs no lock. */
void *
sim_alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (memory == NULL)
	{
		fputs(PROGRAM_NAME ": out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

/* Room for one more in an array that begins as NULL and has this many. Needs no lock. */
void *
sim_grow(void *array, long used, size_t size)
{
	if ((used & (used - 1)) != 0)
		return array;
	array = realloc(array, size * (size_t) (used > 0 ? 2 * used : 1));
	if (array == NULL)
		abort();
	return array;
}

/* Answer with JSON, in place of what was answered before; takes over the reference. NULL: no body. */
void
sim_reply(SimRequest *request, int status, json_t *answer)
{
	json_decref(request->answer);
	request->status = status;
	request->answer = answer;
	request->content_type = answer == NULL ? NULL :
		status >= 400					   ? "application/problem+json" :
											 "application/json";
}

/* Answer with a problem document; takes over the reference to errors, which may be NULL. */
void
sim_fail(SimRequest *request, int status, const char *detail, json_t *errors)
{
	const char *title = status == 422 ? "Unprocessable Entity" : MHD_get_reason_phrase_for(status);

	sim_reply(request, status,
			  json_pack("{s:s, s:i, s:s, s:o*}", "title", title, "status", status, "detail", detail,
						"errors", errors));
}
