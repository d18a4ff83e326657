/*
 * test_offer.c
 *	  What is learned of offers, and the breakers of images.
 */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "decide/offer.h"
#include "unit.h"

#define SECOND INT64_C(1000000)
#define MINUTE (60 * SECOND)
#define DAY (1440 * MINUTE)

static void
check_learning(void)
{
	const double boots[] = { 50, 10, 40, 20, 30, 60, 70, 80, 90, 100 };

	ok(fabs(plan_offer_decay(8, 7200) - 4) < 1e-9, "after two hours a count is worth half");
	ok(fabs(plan_offer_decay(8, 3600 * 24) - 8.0 / 4096) < 1e-9, "after a day next to nothing");
	ok(plan_offer_decay(8, -100) == 8, "a clock that was set back changes nothing");
	ok(plan_offer_quantile(boots, 10, 0.5) == 50, "the median");
	ok(plan_offer_quantile(boots, 10, 0.95) == 100, "nearly all of ten is all");
	ok(plan_offer_quantile(boots, 1, 0.95) == 50 && plan_offer_quantile(boots, 0, 0.95) == 0,
	   "of one it is that one, of none 0");
	ok(plan_offer_spawn_timeout(600, 0) == 600, "without boot times the setting holds");
	ok(plan_offer_spawn_timeout(600, 200) == 300, "half as long again as nearly all took");
	ok(plan_offer_spawn_timeout(600, 10) == 120, "but two minutes at least");
	ok(plan_offer_spawn_timeout(600, 500) == 600 && plan_offer_spawn_timeout(60, 10) == 60,
	   "and never more than the setting");
	ok(plan_offer_blame("spawn_timeout") == BLAME_BOOT &&
		   plan_offer_blame("never_claimed") == BLAME_WORK &&
		   plan_offer_blame("no_gpu") == BLAME_OFFER && plan_offer_blame("idle") == BLAME_NOBODY,
	   "causes speak against the image, the offer or nobody");
	ok(plan_breaker_threshold(0) == 3 && plan_breaker_threshold(5) == 10 &&
		   plan_breaker_threshold(INT_MAX) == INT_MAX,
	   "the larger the minimum, the more failures it takes");
}

static void
check_breaker(void)
{
	PlanBreaker b = { 0 };
	int64_t now = DAY;
	bool opened = false;

	for (int i = 1; i <= 2; i++)
		opened |= plan_breaker_failed(&b, BLAME_BOOT, i, 3, MINUTE, now);
	ok(!opened && b.failures == 2 && plan_breaker_room(&b, now) == INT_MAX,
	   "two failures change nothing");
	ok(plan_breaker_worked(&b, false) && b.failures == 0,
	   "a pod that comes up begins the count anew");
	ok(!plan_breaker_worked(&b, false), "and the next one changes nothing");
	for (int i = 1; i <= 3; i++)
		opened = plan_breaker_failed(&b, BLAME_BOOT, i, 3, 10 * MINUTE, now);
	ok(opened && b.state == BREAKER_OPEN && plan_breaker_room(&b, now) == 0,
	   "three in a row open it");
	ok(plan_breaker_room(&b, now + MINUTE) == 1, "a minute later one may go");
	ok(!plan_breaker_failed(&b, BLAME_BOOT, 4, 3, MINUTE, now + SECOND) &&
		   b.retry_at == now + MINUTE,
	   "what was under way when it opened puts nothing off");

	b.state = BREAKER_HALF_OPEN;
	b.canary = 7;
	ok(plan_breaker_room(&b, now + DAY) == 0, "one at a time");
	ok(plan_breaker_failed(&b, BLAME_BOOT, 7, 3, SECOND, now) && b.retry_at == now + 2 * MINUTE &&
		   b.canary == 0,
	   "the next one waits two minutes");
	b.state = BREAKER_HALF_OPEN;
	b.canary = 8;
	ok(plan_breaker_failed(&b, BLAME_BOOT, 8, 3, 10 * MINUTE, now) &&
		   b.retry_at == now + 90 * MINUTE,
	   "and nine times as long as the last one lived");
	b.state = BREAKER_HALF_OPEN;
	b.canary = 9;
	ok(plan_breaker_worked(&b, false) && b.state == BREAKER_CLOSED &&
		   plan_breaker_room(&b, now) == INT_MAX,
	   "a canary that comes up closes it");

	for (int i = 1; i <= 3; i++)
		(void) plan_breaker_failed(&b, BLAME_WORK, i, 3, MINUTE, now);
	b.state = BREAKER_HALF_OPEN;
	b.canary = 10;
	ok(!plan_breaker_worked(&b, false) && b.state == BREAKER_HALF_OPEN,
	   "to come up is not enough for an image that does not work");
	ok(plan_breaker_worked(&b, true) && b.state == BREAKER_CLOSED, "a claim is");
}

/* A day of a broken image whose pods live for so long, the first ones all at once. */
static void
check_day(int at_once, int64_t lived, int max_pods, double max_hours)
{
	PlanBreaker b = { 0 };
	int64_t now = lived;
	int pods = at_once;

	for (int i = 1; i <= at_once; i++)
		(void) plan_breaker_failed(&b, BLAME_BOOT, i, 3, lived, now);
	for (now = b.retry_at; now < DAY; now = b.retry_at)
	{
		b.state = BREAKER_HALF_OPEN;
		b.canary = ++pods;
		(void) plan_breaker_failed(&b, BLAME_BOOT, pods, 3, lived, now + lived);
	}
	ok(pods < max_pods && pods * (lived / (60.0 * MINUTE)) < max_hours,
	   "%d pods at once, each for %g s: %d pods, %.2f hours in a day", at_once,
	   (double) lived / SECOND, pods, pods * (lived / (60.0 * MINUTE)));
}

static void
check_names(void)
{
	BreakerState state = BREAKER_CLOSED;
	bool round = true;

	for (int i = 0; i <= BREAKER_HALF_OPEN; i++)
		round &= plan_breaker_parse(plan_breaker_name((BreakerState) i), &state) &&
			state == (BreakerState) i;
	ok(round && !plan_breaker_parse("ajar", &state), "each state's name reads back, and no other");
}

void
test_offer(void)
{
	check_learning();
	check_breaker();
	check_day(3, 1 * SECOND, 60, 5);
	check_day(10, 1 * SECOND, 60, 5);
	check_day(10, 60 * SECOND, 60, 5);
	check_day(10, 300 * SECOND, 60, 5);
	check_day(10, 600 * SECOND, 60, 5);
	check_names();
}
