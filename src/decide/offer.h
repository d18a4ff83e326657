/*
 * decide/offer.h
 *	  What is learned of offers and images, and what follows from it. Pure.
 */
#ifndef GPU_ORCH_PLAN_OFFER_H
#define GPU_ORCH_PLAN_OFFER_H

#include <stdbool.h>
#include <stdint.h>

/* Boot times that are kept of an offer. */
#define PLAN_BOOTS 32

/* Whom the end of a worker speaks against. */
typedef enum PlanBlame
{
	BLAME_NOBODY, /* it was wanted, or says nothing */
	BLAME_OFFER,  /* the machine, or what the provider had */
	BLAME_BOOT,	  /* the image: it does not come up */
	BLAME_WORK	  /* the image: it comes up and does not work */
} PlanBlame;

typedef enum BreakerState
{
	BREAKER_CLOSED,	  /* pods as they are wanted */
	BREAKER_OPEN,	  /* none until retry_at, then one */
	BREAKER_HALF_OPEN /* that one, the canary, is under way */
} BreakerState;

/* The breaker of an image. Times are microseconds of any one clock. */
typedef struct PlanBreaker
{
	BreakerState state;
	int failures;	/* in a row */
	bool must_work; /* to come up is no success: a claim is */
	int canaries;	/* that failed since it opened */
	int64_t retry_at;
	int64_t canary; /* the worker; 0: none */
} PlanBreaker;

extern PlanBlame plan_offer_blame(const char *cause);
extern double plan_offer_decay(double count, double seconds);
extern double plan_offer_quantile(const double *values, int n, double share);
extern double plan_offer_spawn_timeout(double ceiling, double boot);
extern int plan_breaker_threshold(int min_workers);
extern bool plan_breaker_failed(PlanBreaker *breaker, PlanBlame blame, int64_t worker,
								int threshold, int64_t lived, int64_t now);
extern bool plan_breaker_worked(PlanBreaker *breaker, bool claimed);
extern int plan_breaker_room(const PlanBreaker *breaker, int64_t now);
extern const char *plan_breaker_name(BreakerState state);
extern bool plan_breaker_parse(const char *name, BreakerState *state);

#endif
