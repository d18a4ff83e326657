/*
 * unit.h
 *	  What the unit tests share: TAP lines, and random numbers that are the same in each run.
 */
#ifndef GPU_ORCH_UNIT_H
#define GPU_ORCH_UNIT_H

#include <stdbool.h>
#include <stdint.h>

#include "decide/scale.h"

/* One TAP line. */
extern void ok(bool holds, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A comment in the TAP stream. */
extern void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The next whole number in [low, high] of the stream that *seed stands for. */
extern int draw(uint64_t *seed, int low, int high);

/* An input without workers or work: default pool, nothing limits. actions: room for n workers. */
extern void input_init(PlanInput *input, PlanWorker *workers, int n_workers);
extern bool same(const char *a, const char *b);
/* The value of a term; the test fails if there is none of that name. */
extern double term_value(const PlanResult *result, const char *name);
/* How many terms claim to have decided. */
extern int n_bound(const PlanResult *result);

extern void test_backoff(void);
extern void test_budget(void);
extern void test_fsm_task(void);
extern void test_fsm_worker(void);
extern void test_offer(void);
extern void test_place(void);
extern void test_pod_name(void);
extern void test_http_url(void);
extern void test_scale_cases(void);
extern void test_scale_properties(void);
extern void test_fleet(void);

#endif
