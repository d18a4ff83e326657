/*-------------------------------------------------------------------------
 *
 * worker.h
 *		Shared declarations of gpu-orch-worker: the slots, the session, and what
 *		the program's three threads may ask of each other.
 *
 * Three threads, each with one duty, meet in one structure under one mutex:
 *
 *	main		signals and handler processes; never speaks to the database
 *	queue		claims, answers and progress, on a connection of its own
 *	heartbeat	registration and heartbeats, on a connection of its own
 *
 * A slot walks FREE -> CLAIMED (queue) -> RUNNING (main) -> ENDED (main) ->
 * FREE (queue).  Each thread looks at the state as it is and does what is due,
 * so that a lost wake-up costs time and nothing else.  No thread holds the
 * mutex across a database call or a system call that may block.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>
#include <libpq-fe.h>

#define PROGRAM_NAME "gpu-orch-worker"

/* Exit codes, as in sysexits.h */
#define EXIT_STOP_FORCED 1
#define EXIT_BAD_USAGE 64
#define EXIT_NOT_HEARD 69
#define EXIT_INTERNAL 70
#define EXIT_BROKEN 71
#define EXIT_REFUSED 77
#define EXIT_BAD_CONFIG 78

/* Limits, seconds unless said otherwise */
#define DEAD_MAN_DEFAULT 1800.0 /* without a database, on a pod of the leader's */
#define CALL_TIMEOUT 30.0		/* one database call without an answer */
#define BACKOFF_FIRST 0.2
#define BACKOFF_CAP 10.0
#define KILL_GRACE 5.0		   /* between SIGTERM and SIGKILL */
#define FORCED_STOP_LIMIT 10.0 /* for releasing leases before leaving */
#define GOODBYE_LIMIT 5.0	   /* for taking leave */
#define PROGRESS_PERIOD 1.0
#define LISTEN_RETRY 60.0
#define SHORT_SESSION 60.0	/* a session lost sooner makes us wait */
#define STDERR_TAIL 4096	/* bytes of standard error kept */
#define STDERR_LOGGED 65536 /* bytes of an attempt's standard error that are logged */
#define PROGRESS_LINE 4096	/* bytes of a progress line, at most */
#define STAGE_BYTES 200
#define MAX_NAME 200		 /* bytes of a kind or a pool */
#define MAX_CONCURRENCY 1000 /* what one claim may ask for */

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_CLAIMED, /* a lease is held, its handler not started */
	SLOT_RUNNING,
	SLOT_ENDED /* the outcome waits to be reported */
} SlotState;

typedef enum StopReason
{
	STOP_NONE,
	STOP_CANCELLED, /* the application asked for it */
	STOP_DEADLINE,
	STOP_OUTPUT, /* more output than allowed */
	STOP_RELEASE /* this worker must stop at once */
} StopReason;

typedef enum OutcomeKind
{
	OUTCOME_SUCCEEDED,
	OUTCOME_FAILED,
	OUTCOME_RELEASED
} OutcomeKind;

/* How a handler that was not stopped ended. */
typedef enum HandlerEnd
{
	HANDLER_WORKED,
	HANDLER_FAILED,	   /* by the task's fault, as far as it says */
	HANDLER_PREVENTED, /* not by the task's fault */
	HANDLER_MISSING	   /* there was nothing to run */
} HandlerEnd;

/* A claimed task; strings are malloc'd text as the server sent them. */
typedef struct Task
{
	char *task_id;
	char *lease;
	char *attempt;
	char *kind;
	char *traceparent; /* NULL when there is none */
	char *json;		   /* the whole row, for the handler */
	double deadline;   /* on clock_now()'s scale, 0 when there is none */
} Task;

/* What became of a handler; strings are malloc'd, failure is a constant. */
typedef struct Outcome
{
	OutcomeKind kind;
	char *result; /* JSON text, NULL when there is none */
	char *error;
	const char *failure; /* task, platform or rejected */
	bool retry;
} Outcome;

typedef struct Slot
{
	int number;
	SlotState state;
	bool fenced;	 /* the lease is no longer ours: say nothing */
	StopReason stop; /* wanted, not necessarily sent yet */
	int claim_with;	 /* max_tasks of a pending complete_and_claim */
	Task task;
	Outcome outcome;
	bool progress_due;
	double progress_sent;		 /* when, on clock_now()'s scale */
	double fraction;			 /* negative: not told */
	char stage[STAGE_BYTES + 1]; /* empty: not told */
} Slot;

/* What was asked for on the command line and in the environment. */
typedef struct Options
{
	const char *handler;
	int concurrency;
	bool once;
	bool listen;
	double poll;	   /* seconds */
	size_t max_output; /* bytes */
	const char *pool;
	const char *worker_id;
	const char *pod_id;
	const char *installation; /* whose leader made the pod; NULL: no leader did */
	double dead_man;		  /* seconds, 0: off; negative until it is known */
	const char *api_url;	  /* the provider's */
	char *dsn;				  /* the next three are secrets */
	char *password;
	char *registration_token;
	char *capabilities; /* JSON text */
} Options;

typedef struct Session
{
	bool live;
	uint64_t generation; /* counts registrations */
	char *worker_id;
	char *token;
	double since;
	double heartbeat_interval;
} Session;

typedef struct Worker
{
	Options opt; /* constant once the threads run */

	pthread_mutex_t lock; /* guards everything below */
	Session session;
	Slot *slots;
	bool drain_asked;	 /* by a signal */
	bool drain_told;	 /* by the last heartbeat's directive */
	bool stop_asked;	 /* leave now: kill, release, exit */
	bool quit;			 /* the threads shall end */
	int exit_code;		 /* negative while the worker shall go on */
	bool claim_open;	 /* a call that claims has no answer yet */
	bool heartbeat_open; /* a heartbeat has no answer yet */
	bool once_claimed;
	char *broken;		/* why this worker cannot work here; NULL: it can */
	bool doubted;		/* the handler has failed much: one task at a time */
	double claim_after; /* no claim before, on clock_now()'s scale */
	bool leaving;		/* all is done: say goodbye */
	bool left;			/* the goodbye was answered */
	double heard;		/* when the database last answered, or the start */

	int main_wake; /* eventfd of each thread, written by others */
	int queue_wake;
	int heartbeat_wake;
} Worker;

extern Worker worker;

/* A copy of what a call needs to prove who we are. */
typedef struct Identity
{
	uint64_t generation;
	char *worker_id;
	char *token;
} Identity;

/* worker_util.c */
typedef struct Backoff
{
	double last;
} Backoff;

extern void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern void log_bytes(const char *bytes, size_t length);
extern double clock_now(void);
extern double jitter(double seconds);
extern double backoff_next(Backoff *backoff, double cap);
extern void wake(int fd);
extern bool wait_for(int wake_fd, int other_fd, double seconds);
extern void *xrealloc(void *pointer, size_t size);
extern char *xstrdup(const char *string);
extern char *format_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern char *clean_text(const char *bytes, size_t length);

/* worker_state.c */
extern void state_init(void);
extern void state_free(void);
extern void state_wake_all(void);
extern bool state_identity(Identity *identity);
extern void identity_free(Identity *identity);
extern void state_session_start(const char *worker_id, const char *token, double interval);
extern void state_session_lost(uint64_t generation);
extern void state_heard(void);
extern void state_exit(int code);
extern int state_free_slots(void);
extern bool state_draining(void);
extern bool state_finished(void);
extern char *state_holding(void);
extern void state_fill_slot(Task *task);
extern void state_free_slot(Slot *slot);

/* worker_db.c */
typedef struct DbConn
{
	PGconn *pg; /* NULL while not connected */
	const char *purpose;
	char *error; /* malloc'd: what the server said of the last call that it refused */
} DbConn;

typedef enum DbStatus
{
	DB_OK,
	DB_NO_ANSWER, /* nothing known: the same call may be repeated */
	DB_FENCED,	  /* lease_lost */
	DB_REFUSED,	  /* 42501: the session, or the role, has no right */
	DB_IN_USE,	  /* another process works under this worker's id */
	DB_INVALID	  /* the arguments will never be accepted */
} DbStatus;

extern bool db_dsn_valid(const char *dsn);
extern bool db_connect(DbConn *conn);
extern void db_close(DbConn *conn);
extern DbStatus db_call(DbConn *conn, const char *sql, int nparams, const char *const *params,
						PGresult **result);

/* worker_queue.c, worker_heartbeat.c: thread bodies */
extern void *queue_thread(void *unused);
extern void *heartbeat_thread(void *unused);

/* worker_task.c */
struct pollfd;
extern void task_init(void);
extern void task_free(void);
extern void task_step(bool kill_now);
extern int task_poll_fds(struct pollfd *fds);
extern double task_next_due(void);

/* worker_health.c */
extern char *health_handler_problem(void);
extern bool health_note(const Task *task, HandlerEnd end, const char *what);

/* worker_dead_man.c */
extern const char *dead_man_init(void);
extern double dead_man_due(void);
extern bool dead_man_end_pod(void);

/* worker_gpu.c */
extern char *gpu_capabilities(json_t *given, json_t *kinds);
extern char *gpu_stats(int running);

#endif /* WORKER_H */
