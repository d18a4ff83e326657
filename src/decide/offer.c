/*
 * decide/offer.c
 *	  What is learned of offers and images, and what follows from it.
 *
 * Pure: no PostgreSQL header, no clock, no memory of its own. Whom a worker's end
 * speaks against is a table: a pod that never came up speaks against its image, a
 * vanished one against its offer, and an idle one against nobody. What is learned of
 * an offer fades, so that what was true yesterday does not count today.
 *
 * The breaker of an image opens after so many failures in a row, whatever offers they
 * came from. Then one pod at a time, the canary, finds out whether the image has been
 * mended. It goes after 1, 2, 4, ... minutes, and never before nine times as long as
 * the last one lived: all canaries together take no more than a tenth of one pod.
 */
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "decide/offer.h"

/* What is learned of an offer is worth half after so many seconds. */
#define HALF_LIFE 7200.0

/* The least time that a pod gets to boot, in seconds, and the share of slack over what it took. */
#define LEAST_SPAWN_TIMEOUT 120.0
#define SPAWN_SLACK 1.5

/* A canary waits so many times as long as the one before it lived. */
#define CANARY_REST 9

/* Failures in a row that open a breaker, and how many for each worker of the minimum. */
#define LEAST_FAILURES 3
#define FAILURES_PER_MIN 2

#define MINUTE INT64_C(60000000)

/* Minutes before each canary; the last one stands for all that follow. */
static const int canary_waits[] = { 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 60 };

#define N_WAITS ((int) (sizeof(canary_waits) / sizeof(canary_waits[0])))

/* Causes that end a worker, and the reasons of refused creates, where they speak against someone. */
static const struct
{
	const char *cause;
	PlanBlame blame;
} blames[] = {
	{ "spawn_timeout", BLAME_BOOT }, { "no_runtime", BLAME_BOOT },
	{ "pod_failed", BLAME_BOOT },	 { "image", BLAME_BOOT },
	{ "restart_loop", BLAME_WORK },	 { "never_claimed", BLAME_WORK },
	{ "broken", BLAME_WORK },		 { "no_gpu", BLAME_OFFER },
	{ "pod_gone", BLAME_OFFER },	 { "heartbeat_lost", BLAME_OFFER },
};

static const char *const state_names[] = { "closed", "open", "half_open" };

/* Whom a cause speaks against; one that is not listed: nobody. */
PlanBlame
plan_offer_blame(const char *cause)
{
	for (size_t i = 0; i < sizeof(blames) / sizeof(blames[0]); i++)
		if (strcmp(blames[i].cause, cause) == 0)
			return blames[i].blame;
	return BLAME_NOBODY;
}

/* What a count is still worth after so many seconds; a clock that was set back changes nothing. */
double
plan_offer_decay(double count, double seconds)
{
	return seconds > 0 ? count * exp2(-seconds / HALF_LIFE) : count;
}

static int
offer_compare(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return (x > y) - (x < y);
}

/*
 * The least of the values that this share of them does not exceed; 0 of none. Looks at
 * the first PLAN_BOOTS values.
 */
double
plan_offer_quantile(const double *values, int n, double share)
{
	double sorted[PLAN_BOOTS];
	int place;

	if (n > PLAN_BOOTS)
		n = PLAN_BOOTS;
	if (n <= 0)
		return 0;
	memcpy(sorted, values, sizeof(double) * n);
	qsort(sorted, n, sizeof(double), offer_compare);
	place = (int) ceil(share * n) - 1;
	return sorted[place < 0 ? 0 : place >= n ? n - 1 : place];
}

/*
 * How long a pod may take to speak, in seconds: half as long again as nearly all pods of its
 * offer took, within what is sensible; the pool's setting is the ceiling, and holds where
 * no boot time is known (0).
 */
double
plan_offer_spawn_timeout(double ceiling, double boot)
{
	if (boot <= 0)
		return ceiling;
	return fmin(ceiling, fmax(LEAST_SPAWN_TIMEOUT, SPAWN_SLACK * boot));
}

/* How many failures in a row open the breaker of a pool's image. */
int
plan_breaker_threshold(int min_workers)
{
	if (min_workers > INT_MAX / FAILURES_PER_MIN)
		return INT_MAX;
	return FAILURES_PER_MIN * min_workers > LEAST_FAILURES ? FAILURES_PER_MIN * min_workers :
															 LEAST_FAILURES;
}

/*
 * Note that a worker of the image failed after it lived for so long (microseconds). While
 * the breaker is open only its canary counts: what was under way when it opened tells
 * nothing new. True if this opened it, now or again.
 */
bool
plan_breaker_failed(PlanBreaker *breaker, PlanBlame blame, int64_t worker, int threshold,
					int64_t lived, int64_t now)
{
	int step;
	int64_t wait;

	breaker->failures += breaker->failures < INT_MAX;
	breaker->must_work = breaker->must_work || blame == BLAME_WORK;
	if (breaker->state == BREAKER_CLOSED && breaker->failures < threshold)
		return false;
	if (breaker->state != BREAKER_CLOSED && breaker->canary != worker)
		return false;
	if (breaker->state == BREAKER_CLOSED)
		breaker->canaries = 0;
	else
		breaker->canaries++;
	step = breaker->canaries < N_WAITS ? breaker->canaries : N_WAITS - 1;
	wait = canary_waits[step] * MINUTE;
	if (breaker->canaries > 0 && lived > wait / CANARY_REST)
		wait = lived * CANARY_REST;
	breaker->state = BREAKER_OPEN;
	breaker->retry_at = now + wait;
	breaker->canary = 0;
	return true;
}

/*
 * Note that a worker of the image came up or, if claimed, that it took a task. An image
 * whose workers come up and do not work has to do the latter. True if anything changed.
 */
bool
plan_breaker_worked(PlanBreaker *breaker, bool claimed)
{
	if (breaker->must_work && !claimed)
		return false;
	if (breaker->state == BREAKER_CLOSED && breaker->failures == 0)
		return false;
	memset(breaker, 0, sizeof(*breaker));
	return true;
}

/* How many pods of the image may be created now; INT_MAX: as many as are wanted. */
int
plan_breaker_room(const PlanBreaker *breaker, int64_t now)
{
	if (breaker->state == BREAKER_CLOSED)
		return INT_MAX;
	return breaker->canary == 0 && breaker->retry_at <= now ? 1 : 0;
}

/* The name that tables and views show. */
const char *
plan_breaker_name(BreakerState state)
{
	return state_names[state];
}

/* Read a state's name; false, and *state untouched, if there is none of that name. */
bool
plan_breaker_parse(const char *name, BreakerState *state)
{
	for (int i = 0; i <= BREAKER_HALF_OPEN; i++)
		if (strcmp(name, state_names[i]) == 0)
		{
			*state = (BreakerState) i;
			return true;
		}
	return false;
}
