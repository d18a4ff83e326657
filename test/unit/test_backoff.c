/*
 * test_backoff.c
 *	  Bounds of backoff_ms: half certain, never above the cap, no overflow.
 */
#include <limits.h>

#include "decide/backoff.h"
#include "unit.h"

/* What a backoff without jitter would be. */
static int64_t
whole_backoff(int attempt, int64_t base, int64_t cap)
{
	int64_t whole = base;

	while (--attempt > 0 && whole < cap)
		whole *= 2;
	return whole < cap ? whole : cap;
}

void
test_backoff(void)
{
	bool bounded = true;
	bool low_seen = false;
	bool high_seen = false;
	uint64_t seed = 1;

	for (int attempt = 1; attempt <= 12; attempt++)
		for (int i = 0; i < 1000; i++)
		{
			int64_t whole = whole_backoff(attempt, 1000, 60000);
			int64_t ms = backoff_ms(attempt, 1000, 60000, (uint64_t) draw(&seed, 0, INT_MAX));

			bounded &= ms >= whole / 2 && ms <= whole;
			low_seen |= ms < whole * 0.55;
			high_seen |= ms > whole * 0.95;
		}
	ok(bounded, "between half of the doubled base and all of it, never above the cap");
	ok(low_seen && high_seen, "the seed reaches both ends of the free half");
	ok(backoff_ms(3, 1000, 60000, 7) == backoff_ms(3, 1000, 60000, 7),
	   "the same seed, the same wait");
	ok(backoff_ms(12, 1000, 60000, 7) != backoff_ms(13, 1000, 60000, 7),
	   "one seed for all tries still gives each try a wait of its own");
	ok(backoff_ms(INT_MAX, 1, INT64_MAX, 9) >= INT64_MAX / 2, "no overflow at the largest cap");
	ok(backoff_ms(INT_MAX, INT64_MAX, INT64_MAX, 9) >= INT64_MAX / 2, "nor at the largest base");
	ok(backoff_ms(1, 5000, 100, 3) <= 100, "a base above the cap is cut to it");
	ok(backoff_ms(0, 1000, 60000, 3) <= 1000 && backoff_ms(-5, 1000, 60000, 3) >= 500,
	   "an attempt below 1 counts as the first");
	ok(backoff_ms(1, 0, 100, 3) == 0 && backoff_ms(1, 100, 0, 3) == 0 &&
		   backoff_ms(1, -1, -1, 3) == 0,
	   "no base or no cap: no wait");
	ok(backoff_ms(4, 1, 1, 3) >= 0 && backoff_ms(4, 1, 1, 3) <= 1, "the least base and cap");
}
