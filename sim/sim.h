/*
 * sim.h
 *	  What the files of runpod-sim share: the state, a request on its way, a pod.
 *
 * One mutex, sim.lock, guards all state. The HTTP thread holds it while it serves a
 * request, the clock thread while it ends delays and runs containers; whatever is
 * declared here expects it held unless its comment says otherwise.
 *
 * Two clocks: sim_now() is the provider's (seconds since 1970, can be moved forward),
 * sim_mono() is the machine's own (for processes).
 */
#ifndef SIM_H
#define SIM_H

#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>

#define PROGRAM_NAME "runpod-sim"
#define MAX_BODY_BYTES 102400
#define POD_ID_BYTES 14
#define NO_CAPACITY \
	"There are no longer any instances available with the requested specifications. " \
	"Please refresh and try again."
#define NO_BALANCE \
	"Your account balance is too low to rent a pod. Please add funds to your account."

typedef struct SimRequest SimRequest;
typedef struct SimRule SimRule;
typedef struct SimGroup SimGroup;

/* A stream of random numbers. It points into itself: never copy or move one. */
typedef struct SimRandom
{
	struct random_data data;
	char state[64];
} SimRandom;

/* What a fault acts on. At most one rule of each kind applies to a request. */
typedef enum SimFaultKind
{
	FAULT_WIRE,	  /* how the answer travels */
	FAULT_ANSWER, /* which answer is given */
	FAULT_EFFECT, /* when the call takes effect */
	FAULT_POD,	  /* what becomes of the pod */
	FAULT_VIEW,	  /* what a list or a get shows */
	FAULT_ALTER,  /* values inside the answer */
	FAULT_BODY,	  /* the text of the answer */
	FAULT_DELAY,  /* when the answer is given */
	N_FAULT_KINDS
} SimFaultKind;

/* A row of the table of actions. */
typedef struct SimAction
{
	const char *name;
	SimFaultKind kind;
	bool after;			/* the call takes effect all the same */
	int status;			/* FAULT_ANSWER: the default status */
	const char *detail; /* FAULT_ANSWER: the default text */
	const char *params; /* names of the parameters, parted by spaces */
} SimAction;

/* A fault that is switched on. */
struct SimRule
{
	char *name;
	const SimAction *action;
	json_t *json;	/* as given, but in the nested form */
	json_t *match;	/* borrowed from json */
	json_t *params; /* borrowed from json */
	double probability;
	long skip;	  /* matching calls to leave alone first */
	long count;	  /* -1: no limit */
	double until; /* on the provider's clock */
	long seen;	  /* calls that matched */
	long hits;	  /* calls it was applied to */
	SimRandom random;
	TAILQ_ENTRY(SimRule) link;
};

typedef struct SimDataCenter
{
	const char *id;
	const char *region;
	bool global_network;
	const char *volume_type; /* NULL: no network volumes */
} SimDataCenter;

typedef struct SimGpu
{
	const char *id;
	const char *name;
	const char *pool;
	const char *manufacturer;
	int memory_gb;
	bool secure;
	bool community;
	double price_secure; /* dollars per GPU-hour */
	double price_community;
	int max_secure;
	int max_community;
	const char *stock; /* one letter of NLMH for each data centre */
} SimGpu;

/* A time during which a pod was billed at one rate. */
typedef struct SimSegment
{
	double from;
	double to;	  /* INFINITY while it lasts */
	double rate;  /* dollars per hour */
	bool running; /* GPU and disk, or disk alone */
} SimSegment;

typedef struct SimPod
{
	char id[POD_ID_BYTES + 1];
	char api_key[40];
	long seq;
	json_t *spec; /* the keys that are answered as they were asked for */
	const SimGpu *gpu;
	int gpu_count;
	const SimDataCenter *data_center;
	bool community;
	double cost; /* dollars per hour for the whole pod */
	char cuda[12];
	bool foreign; /* made by someone else in the account */
	bool member;  /* of a cluster */
	bool locked;
	bool no_gpus; /* it was started without any */
	bool no_ip;	  /* its ports have no address */
	double created_at;
	double started_at; /* the last create, start or restart */
	int starts;
	double container_at;  /* when the container last began; 0: as it booted */
	double boot_seconds;  /* from a start to its container */
	double stale_seconds; /* for which its ports are those of the start before */
	double deleted_at;	  /* 0: it lives */
	const char *ended_by;
	const char *halted;		  /* EXITED, ERROR or NULL */
	const char *stuck_status; /* never boots and shows this; or NULL */
	double crash_every;		  /* seconds that a container lives; 0: for ever */
	double halt_at;			  /* when it halts by itself; INFINITY: never */
	const char *halt_as;
	double vanish_at;
	SimSegment *segments;
	int n_segments;
	SimGroup *group; /* its processes, or NULL */
	int runs;
	double next_run;				/* on the machine's clock */
	const struct SimRecord *record; /* of the request that made it, or NULL */
	TAILQ_ENTRY(SimPod) link;
} SimPod;

/* What is remembered of a request for good. */
typedef struct SimRecord
{
	double at;
	double ended_at;
	char method[8];
	char *path;
	const char *call;
	const char *fault;
	int status;
	const char *outcome; /* NULL: it is still on its way */
} SimRecord;

typedef struct SimRoute
{
	const char *method;
	const char *path; /* a star stands for one segment */
	const char *call; /* what rules know it as */
	void (*serve)(SimRequest *request);
	int flags;
} SimRoute;

/* A request from its first byte to its last. */
struct SimRequest
{
	struct MHD_Connection *connection;
	const char *method;
	const char *path;
	char *body;
	size_t body_len;
	bool too_large;
	bool reused; /* not the first request of its connection */
	enum
	{
		STAGE_BEGIN,
		STAGE_EXECUTE,
		STAGE_SEND
	} stage;

	const SimRoute *route;
	char segment[128]; /* what the star of the route stands for */
	json_t *json;	   /* the body; NULL if it is not JSON */
	SimPod *key_pod;   /* whose key was used; NULL: the account's */
	SimRule *faults[N_FAULT_KINDS];
	SimRecord *record; /* NULL for our own interface */
	json_t *entry;	   /* its line among the ledger's entries, or NULL; borrowed */

	int status; /* 0: not answered yet */
	json_t *answer;
	const char *op; /* the ledger's word for it, or NULL: it has no entry */
	bool executed;
	char pod_id[POD_ID_BYTES + 1]; /* create: the pod that was made */
	char allow[64];
	char retry_after[64];
	char rate_limit[160];
	char rate_policy[96];
	char request_id[33];
	const char *content_type;
	char *payload;
	size_t payload_len;
	const SimAction *wire; /* how it travels, if not as usual */
	size_t wire_bytes;	   /* of the payload, in all or at a time */
	double wire_seconds;   /* between two parts of the payload */

	double refuse; /* seconds without a listener, from when it has been answered */
	bool unheard;  /* the client had gone when it was answered */

	double due; /* on the provider's clock, while it is held back */
	TAILQ_ENTRY(SimRequest) link;
};

TAILQ_HEAD(SimRuleList, SimRule);
TAILQ_HEAD(SimRequestList, SimRequest);
TAILQ_HEAD(SimPodList, SimPod);

typedef struct Sim
{
	pthread_mutex_t lock;
	bool stopping;
	bool deaf;			   /* the listener is being closed */
	double refuse_seconds; /* for which the listener is to be closed */

	/* the command line */
	char *api_key;
	const char *launch;
	char *tls_cert; /* as PEM; NULL: no TLS */
	char *tls_key;
	double boot_seconds;
	double provision_seconds; /* of those of the boot; below 0: a third */
	double port_seconds;
	double spend_limit; /* dollars per hour; 0: none */
	unsigned seed;
	bool paging;
	int page_size;
	bool staged;
	bool exited_costs; /* an EXITED pod shows what it would cost */
	bool rest_v1;
	bool manual_clock; /* stands still but for being moved */
	double billing_lag;
	long quota;

	double advanced; /* seconds that the provider's clock was moved */
	double as_of;	 /* what the clock shows while something late is made up for; 0: the time */
	bool revoked;
	bool read_only;
	double balance; /* dollars at balance_billed */
	double balance_billed;
	SimRandom random; /* ids, keys and places of pods */
	SimRandom request_ids;
	SimPod **pods; /* all that there ever were, oldest first */
	int n_pods;
	struct SimPodList live; /* those that have not ended */
	double billed_ended;	/* dollars for those that have */
	json_t *pod_index;		/* id to place in pods */
	json_t *entries;		/* the ledger's creates and deletes */
	long creates;
	long deletes;
	SimRecord **records; /* of all requests, in their order */
	long n_records;
	struct SimRuleList rules;
	struct SimRequestList held;	 /* requests held back */
	struct SimRequestList later; /* what takes effect after its answer, the first due first */
} Sim;

extern Sim sim;

/* sim_util.c */
extern double sim_now(void);
extern double sim_mono(void);
extern void sim_clock_start(void);
extern json_t *sim_time_json(double time);
extern bool sim_time_parse(const char *text, double *time);
extern void sim_random_start(SimRandom *random, unsigned seed);
extern double sim_random_fraction(SimRandom *random);
extern void sim_random_text(SimRandom *random, const char *alphabet, char *out, int len);
extern bool sim_word_in(const char *word, const char *words);
extern void *sim_alloc(size_t size);
extern void *sim_grow(void *array, long used, size_t size);
extern void sim_fail(SimRequest *request, int status, const char *detail, json_t *errors);
extern void sim_reply(SimRequest *request, int status, json_t *answer);

/* sim_http.c; the first two need no lock, and sim_http_stop() takes it */
extern struct MHD_Daemon *sim_http_start(const char *address, char *bound, size_t bound_size);
extern void sim_http_stop(struct MHD_Daemon *http);
extern void sim_http_release(bool all);
extern const char *sim_query(const SimRequest *request, const char *key);

/* sim_routes.c */
extern void sim_begin(SimRequest *request);
extern void sim_execute(SimRequest *request);

/* sim_later.c */
extern void sim_later_add(const SimRequest *request);
extern void sim_later_run(double now);
extern void sim_later_stop(void);

/* sim_rules.c */
extern SimRule *sim_rule_add(const json_t *json, char *error, size_t error_size);
extern void sim_rule_drop(SimRule *rule);
extern bool sim_rule_load(const char *file, char *error, size_t error_size);
extern double sim_rule_number(const SimRule *rule, const char *param, double otherwise);
extern void sim_rules_get(SimRequest *request);
extern void sim_rules_post(SimRequest *request);

/* sim_faults.c */
extern void sim_fault_plan(SimRequest *request);
extern bool sim_fault_answer(SimRequest *request, bool after);
extern void sim_fault_alter(SimRequest *request);
extern double sim_fault_delay(const SimRequest *request, bool after);
extern const char *sim_fault_name(const SimRequest *request);
extern bool sim_fault_is(const SimRequest *request, SimFaultKind kind, const char *action);
extern double sim_fault_seconds(const SimRequest *request, SimFaultKind kind, const char *action);
extern void sim_fault_pod(const SimRequest *request, SimPod *pod);
extern void sim_fault_body(SimRequest *request);

/* sim_schema.c */
extern bool sim_schema_create(SimRequest *request);
extern bool sim_schema_update(SimRequest *request);
extern bool sim_schema_action(SimRequest *request);

/* sim_catalog.c */
extern const SimGpu *sim_gpu_find(const char *id);
extern const SimDataCenter *sim_data_center_find(const char *id);
extern const SimDataCenter *sim_volume_place(const char *volume_id);
extern json_t *sim_volume_data_centers(void);
extern const json_t *sim_template_find(const char *id);
extern const SimDataCenter *sim_place(const SimGpu *gpu, const json_t *wanted);
extern void sim_catalog_start(void);
extern void sim_catalog_stop(void);
extern void sim_gpus_get(SimRequest *request);
extern void sim_data_centers_get(SimRequest *request);
extern void sim_stock_post(SimRequest *request);

/* sim_create.c */
extern void sim_pods_create(SimRequest *request);
extern void sim_create_wished(SimRequest *request, const json_t *wish);
extern SimPod *sim_foreign_pod(const json_t *wish, const char *name);

/* sim_pods.c */
extern SimPod *sim_pod_new(const SimGpu *gpu, int count, const SimDataCenter *place, bool community,
						   json_t *spec);
extern SimPod *sim_pod_find(const char *id);
extern SimPod *sim_pod_by_key(const char *key);
extern double sim_pod_booted_at(const SimPod *pod);
extern const char *sim_pod_status(const SimPod *pod, double now);
extern bool sim_pod_runs(const SimPod *pod, double now);
extern double sim_pod_container_start(const SimPod *pod, double now);
extern void sim_pod_start(SimPod *pod, double now);
extern void sim_pod_halt(SimPod *pod, double at, const char *status);
extern void sim_pod_end(SimPod *pod, double at, const char *by);
extern void sim_pods_tick(double now);

/* sim_show.c */
extern json_t *sim_pod_actions(const char *status);
extern json_t *sim_pod_json(const SimPod *pod, double now);

/* sim_calls.c */
extern json_t *sim_list(const SimRequest *request, long before, long limit, long *last);
extern SimPod *sim_named_pod(SimRequest *request);
extern void sim_pod_delete(SimRequest *request, SimPod *pod);
extern void sim_pods_list(SimRequest *request);
extern void sim_pods_get(SimRequest *request);
extern void sim_pods_update(SimRequest *request);
extern void sim_pods_delete(SimRequest *request);
extern void sim_pods_action(SimRequest *request);

/* sim_meter.c */
extern void sim_meter_switch(SimPod *pod, double at, bool running);
extern void sim_meter_stop(SimPod *pod, double at);
extern double sim_billed(const SimPod *pod, double from, double to, double *disk);
extern double sim_balance(double now);
extern void sim_balance_set(double balance);
extern double sim_spend_per_hour(void);
extern void sim_billing_get(SimRequest *request);

/* sim_ledger.c */
extern void sim_record_begin(SimRequest *request);
extern void sim_record_answer(SimRequest *request);
extern void sim_record_end(SimRequest *request, bool complete);
extern void sim_ledger_note(SimRequest *request);
extern void sim_ledger_note_effect(const SimRequest *request);
extern void sim_ledger_get(SimRequest *request);

/* sim_graphql.c */
extern void sim_graphql_post(SimRequest *request);

/* sim_v1.c */
extern bool sim_v1_is(const SimRequest *request);
extern void sim_v1_answer(SimRequest *request);
extern void sim_v1_create(SimRequest *request);
extern void sim_v1_list(SimRequest *request);
extern void sim_v1_get(SimRequest *request);
extern void sim_v1_delete(SimRequest *request);

/* sim_control.c */
extern void sim_clock_get(SimRequest *request);
extern void sim_clock_post(SimRequest *request);
extern void sim_control_pods_get(SimRequest *request);
extern void sim_control_pods_post(SimRequest *request);
extern void sim_balance_get(SimRequest *request);
extern void sim_balance_post(SimRequest *request);
extern void sim_key_post(SimRequest *request);
extern void sim_refuse_post(SimRequest *request);

/* sim_launch.c */
extern void *sim_clock_thread(void *unused);
extern pid_t sim_group_pid(const SimGroup *group);

#endif
