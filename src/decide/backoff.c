/*
 * decide/backoff.c
 *	  Exponential backoff with equal jitter, for retries of tasks, of calls to the
 *	  provider and of refused offers.
 *
 * Pure: no PostgreSQL header, no clock, no state. The caller brings the randomness.
 */
#include "decide/backoff.h"

/* One step of splitmix64: a well mixed 64-bit number for each seed. */
static uint64_t
splitmix64(uint64_t seed)
{
	uint64_t mixed = seed + UINT64_C(0x9e3779b97f4a7c15);

	mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
	return mixed ^ (mixed >> 31);
}

/*
 * Milliseconds to wait before try number attempt + 1, where attempt (1..) tries have
 * failed: base_ms doubled for each failure after the first, at most cap_ms; half of
 * that is certain, the other half is drawn from seed and attempt. Never above cap_ms,
 * never overflows; a base or cap that is not positive gives 0.
 */
int64_t
backoff_ms(int attempt, int64_t base_ms, int64_t cap_ms, uint64_t seed)
{
	int64_t whole = base_ms < cap_ms ? base_ms : cap_ms;
	int64_t half;

	if (whole <= 0)
		return 0;
	for (int i = 1; i < attempt && whole < cap_ms; i++)
		whole = whole > cap_ms / 2 ? cap_ms : whole * 2;
	half = whole / 2;
	return half +
		(int64_t) (splitmix64(seed ^ splitmix64((uint64_t) attempt)) %
				   ((uint64_t) (whole - half) + 1));
}
