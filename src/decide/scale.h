/*
 * decide/scale.h
 *	  One scaling evaluation of one pool: a snapshot in, a decision out. Pure.
 *
 * All times are seconds, as of the one moment at which the snapshot was taken.
 */
#ifndef GPU_ORCH_PLAN_SCALE_H
#define GPU_ORCH_PLAN_SCALE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decide/fsm_worker.h"

#define PLAN_MAX_TERMS 48
#define PLAN_NO_LIMIT INT_MAX

typedef enum PlanPolicy
{
	POLICY_QUEUE_RATIO,
	POLICY_ONE_TO_ONE,
	POLICY_FIXED
} PlanPolicy;

/* A pool's parameters. plan_pool_init gives each its default; docs/scaling.md explains them. */
typedef struct PlanPool
{
	PlanPolicy policy;
	int min_workers;
	int max_workers; /* 0: emergency stop */
	int idle_buffer;
	double idle_timeout;
	double spawn_timeout;
	double drain_timeout;
	double heartbeat_timeout;
	double max_worker_age; /* 0: no limit */
	/* policy options, see plan_options */
	double tasks_per_worker;
	double scale_up_multiplier;
	double scale_down_multiplier;
	double scale_down_grace;
	double spawning_grace;
	double drain_settle;
	int fixed_workers;
	int max_create_per_cycle; /* 0: no limit */
	int offers_by_price;	  /* 1: the cheapest offer first, else the preferred one */
} PlanPool;

/* A policy option: a number that a pool's policy_options may set by name. */
typedef struct PlanOption
{
	const char *name;
	const char *unit;
	bool whole; /* an int in PlanPool, else a double */
	size_t offset;
	double normal; /* the default */
	double lowest;
	double highest;
	const char *comment;
} PlanOption;

typedef struct PlanWorker
{
	int64_t no;
	WorkerState state;
	WorkerOrigin origin;
	int held;			  /* leases */
	double age;			  /* since its intent was committed */
	double state_age;	  /* since it came into its state */
	double idle;		  /* since its last lease ended, or since it became active */
	double silence;		  /* since its last heartbeat; negative: never */
	bool create_open;	  /* its create is not answered, or its outcome unknown */
	bool recallable;	  /* draining for "idle" or "surplus": demand may take it back */
	double boot_expected; /* what nearly all pods of its offer took to boot; 0: not known */
	double booted_in;	  /* from its intent to its first word; 0: not known */
	bool no_runtime;	  /* the provider shows it running, and nothing in it */
	bool claimed;		  /* it has held a lease, ever */
	int registrations;	  /* since the last of which it has not answered for a task, or 0 */
	double passed_over;	  /* since tasks wait that it could claim; negative: none does */
	bool kept;			  /* a transaction kept its row when it was to be moved */
} PlanWorker;

typedef struct PlanInput
{
	PlanPool pool;
	int claimable;		   /* tasks in ready that this pool's workers match */
	int matching_external; /* idle external workers that could serve them */
	bool hold;			   /* the installation is not ours to act for: decide, do nothing */
	bool unreadable;	  /* what the pool should be is not known: nobody comes, or goes for that */
	bool paused;		  /* no creates */
	bool first_look_done; /* a complete reconcile since the leader began */
	int budget_room;	  /* creates that every hard budget still allows */
	const char *budget;	  /* the one that allows the fewest; NULL: there is none */
	const char *soft_budget;	/* one that is used up: no idle buffer; NULL: none is */
	int rate_room;				/* creates that the rate limit still allows */
	int image_room;				/* creates that the breaker of the image still allows */
	bool request_refused;		/* every offer says that the request is wrong: no creates */
	int lost_room;				/* workers that may be declared lost now; 0 just after a start or a
								 * step of the clock, when silence proves nothing */
	double since_last_scale_in; /* negative: never */
	const PlanWorker *workers;	/* of this pool, and external ones; each at most once */
	int n_workers;
} PlanInput;

typedef enum PlanActionKind
{
	PLAN_KEEP, /* no action; never in a result */
	PLAN_DRAIN,
	PLAN_UNDRAIN,
	PLAN_TERMINATE,
	PLAN_LOST
} PlanActionKind;

/* What is to become of one worker. The cause is one that fsm_worker_find knows for it. */
typedef struct PlanAction
{
	PlanActionKind kind;
	int64_t worker;
	const char *cause;
} PlanAction;

/* A number that entered the decision. Names and notes are as explain_scaling shows them. */
typedef struct PlanTerm
{
	const char *name;
	double value;
	bool bound; /* true of exactly one: it decided */
	char note[96];
} PlanTerm;

typedef struct PlanResult
{
	PlanAction *actions; /* from the caller, room for n_workers */
	int n_actions;
	int create; /* intents to commit now */
	int desired;
	bool scaled_in;		  /* something ends for want of demand: remember when */
	const char *bound_by; /* name of the term that decided */
	PlanTerm terms[PLAN_MAX_TERMS];
	int n_terms;
	/* the pool's own workers as the snapshot has them */
	int n_spawning;
	int n_initializing;
	int n_active;
	int n_idle; /* active, no lease */
	int n_busy; /* active, with a lease */
	int n_draining;
	int n_terminating;
	int n_total; /* all of these: each bills until it is proved gone */
} PlanResult;

extern const PlanOption plan_options[];
extern const int n_plan_options;

extern const char *plan_policy_name(PlanPolicy policy);
extern bool plan_policy_parse(const char *name, PlanPolicy *policy);
extern void plan_pool_init(PlanPool *pool);
extern const char *plan_option_set(PlanPool *pool, const char *name, double value);
extern void plan_scale(const PlanInput *input, PlanResult *result);

#endif
