/*
 * main.c
 *	  Runs every unit test of the pure decision layer and prints TAP.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "unit.h"

static int n_tests = 0;
static int n_failed = 0;

void
ok(bool holds, const char *format, ...)
{
	va_list args;

	n_tests++;
	n_failed += !holds;
	printf("%sok %d - ", holds ? "" : "not ", n_tests);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void
note(const char *format, ...)
{
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

int
draw(uint64_t *seed, int low, int high)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return low + (int) ((*seed >> 33) % ((uint64_t) ((int64_t) high - low) + 1));
}

bool
same(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

void
input_init(PlanInput *input, PlanWorker *workers, int n_workers)
{
	memset(input, 0, sizeof(*input));
	plan_pool_init(&input->pool);
	input->first_look_done = true;
	input->budget_room = PLAN_NO_LIMIT;
	input->rate_room = PLAN_NO_LIMIT;
	input->image_room = PLAN_NO_LIMIT;
	input->lost_room = PLAN_NO_LIMIT;
	input->since_last_scale_in = -1;
	input->workers = workers;
	input->n_workers = n_workers;
}

double
term_value(const PlanResult *result, const char *name)
{
	for (int i = 0; i < result->n_terms; i++)
		if (same(result->terms[i].name, name))
			return result->terms[i].value;
	ok(false, "there is a term %s", name);
	return -1;
}

int
n_bound(const PlanResult *result)
{
	int n = 0;

	for (int i = 0; i < result->n_terms; i++)
		n += result->terms[i].bound;
	return n;
}

int
main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	test_backoff();
	test_budget();
	test_fsm_task();
	test_fsm_worker();
	test_offer();
	test_place();
	test_pod_name();
	test_http_url();
	test_scale_cases();
	test_scale_properties();
	test_fleet();
	printf("1..%d\n", n_tests);
	return n_failed > 0;
}
