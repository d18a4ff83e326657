/*
 * leader/leader.h
 *	  What the parts of the leader share.
 */
#ifndef GPU_ORCH_LEADER_H
#define GPU_ORCH_LEADER_H

#include "cloud/cloud.h"
#include "db/ext_guard.h"
#include "base/shmem.h"
#include "store/installation.h"
#include "store/worker.h"
#include "utils/hsearch.h"

/* Tags of calls that are no ops. */
#define TAG_LIST (-1)
#define TAG_CATALOG (-2)
#define TAG_ACCOUNT (-3)
#define TAG_TRY_KEY (-4)
#define TAG_BILLING (-5)
#define TAG_LOOK (-100) /* and below: looks at single pods */

/* After a delete or an unknown outcome the list is read again this soon, in ms. */
#define LOOK_SOON_MS 1000

/* Time between two looks at the prices; the shorter while some are missing. */
#define CATALOG_INTERVAL (3600 * USECS_PER_SEC)
#define CATALOG_RETRY (60 * USECS_PER_SEC)

/* What may keep calls waiting: the kinds of calls, numbered as CloudCall, and these. */
enum
{
	GATE_RATE = CLOUD_LAST_CALL + 1, /* too many requests: no call at all */
	GATE_KEY,						 /* the key is refused: no creates */
	GATE_RIGHTS,					 /* the key may not do this: no creates */
	GATE_MONEY,						 /* the account lacks the money: no creates */
	GATE_SETUP,						 /* there is no session; stops nothing that could be done */
	GATE_NEW_KEY,					 /* the key that is to replace ours cannot be used */
	GATES
};

typedef struct Gate
{
	int failures;			 /* in a row */
	CloudCall closed_by;	 /* the kind of call that failed last */
	TimestampTz until;		 /* by our own backoff; 0: open */
	int64 wait;				 /* how long that was, in microseconds */
	TimestampTz asked_until; /* by the provider's word */
	int64 asked_wait;
	int in_flight;		   /* calls of this kind */
	int told;			   /* 1 + whether its alert is raised; 0: not known */
	char what[SHMEM_TEXT]; /* the way in which it fails, as logged */
	char why[SHMEM_TEXT];  /* the last failure */
} Gate;

/* What tells whether a file is another one than before. */
typedef struct FileStamp
{
	int64 device;
	int64 inode;
	int64 size;
	int64 modified; /* nanoseconds, as the next */
	int64 changed;
} FileStamp;

typedef struct Leader
{
	MemoryContext memory;  /* as long as the process */
	MemoryContext scratch; /* reset at each turn */

	GuardVerdict verdict; /* of the last step */
	int64 epoch;		  /* 0: not begun in this extension yet */
	Installation installation;

	CloudSession *cloud;	 /* NULL: no usable key or address */
	uint64 cloud_generation; /* goes up whenever cloud changes */
	char *cloud_url;		 /* what it was opened with */
	FileStamp key_file;		 /* of the key that was read last */
	char *new_key;			 /* read and not known to work yet; NULL: none */
	bool trying_key;		 /* the call that tells is in flight */
	Gate gates[GATES];
	char api_failing[SHMEM_TEXT]; /* in which way, as logged; empty while it works */
	HTAB *absences;				  /* pods that one list has shown to be missing or not wanted */
	struct LeaderLook *look;	  /* what leader/look.c remembers */
	TimestampTz next_bill;		  /* when the bills are read again */
	bool bill_in_flight;
	HTAB *starts; /* when the containers of pods started; NULL: none seen yet */

	TimestampTz next_tick;
	TimestampTz next_recheck;
	TimestampTz next_count;		/* of the queue and of what ended */
	TimestampTz next_retention; /* when what is over is looked for again */
	TimestampTz next_due;		/* of a scheduled task or a deadline; 0: none */
	TimestampTz next_op_due;	/* when a planned op may be sent; 0: none waits for its time */
	TimestampTz decide_at;		/* a decision is wanted then; 0: not asked for */
	TimestampTz decide_after;	/* no decision that a commit asks for before this */
	TimestampTz admit_after;	/* nor anything released that a commit asks for */
	TimestampTz next_reconcile;
	TimestampTz next_catalog;
	TimestampTz last_catalog; /* when prices were last asked for */
	int64 unpriced;			  /* offers whose price was not known at the last tick */
	TimestampTz list_started; /* 0: none in flight */
	bool catalog_in_flight;
	int64 stepped;			   /* by our clock, and not yet made up for */
	TimestampTz stepped_since; /* our clock when it had not been yet */
	bool clocks_compared;	   /* provider_epoch is known */
	int64 provider_epoch;	   /* added to a time of the provider: ours, at most a little early */
	uint64 reconcile_answering;
	CycleSummary actions; /* since the last cycle was reported */
} Leader;

typedef void (*LeaderStep)(Leader *leader, void *arg);

/* leader/main.c */
extern bool leader_step(Leader *leader, const char *doing, LeaderStep step, void *arg);
extern void leader_note_error(const char *doing, const char *message);
extern void leader_answer_reconcile(uint64 asked, bool failed);

extern void leader_look_first(Leader *leader);

/* leader/gate.c */
extern void leader_gate_fail(Leader *leader, int gate, const char *what, const char *message);
extern void leader_gate_lift(Leader *leader, int gate);
extern void leader_gate_started(Leader *leader, CloudCall call);
extern void leader_gate_note(Leader *leader, const CloudAnswer *answer, const char *what);
extern TimestampTz leader_gate_opens(const Leader *leader, CloudCall call);
extern int leader_gate_room(const Leader *leader, CloudCall call, TimestampTz now);
extern bool leader_gate_is_quiet(const Leader *leader, CloudCall call, TimestampTz now);
extern bool leader_gate_is_shut(const Leader *leader, CloudCall call);
extern void leader_gate_clip(Leader *leader, TimestampTz now);
extern void leader_gate_begin_anew(Leader *leader);
extern void leader_gate_tell(Leader *leader);
extern void leader_gate_tell_anew(Leader *leader);

/* leader/stats.c */
extern void leader_stats_started(CloudCall call);
extern void leader_stats_note(const CloudAnswer *answer, const char *what);
extern void leader_stats_show_gates(const Leader *leader);
extern void leader_stats_key(const char *key);

/* leader/key.c */
extern void leader_open_cloud(Leader *leader);
extern void leader_key_tried(Leader *leader, const CloudAnswer *answer, const char *what);

/* leader/tick.c */
extern bool leader_admit(Leader *leader, uint32 flags);
extern bool leader_end_overdue(Leader *leader);
extern void leader_tick(Leader *leader);

/* leader/count.c */
extern void leader_count_clip(Leader *leader, TimestampTz now);
extern void leader_count(Leader *leader, TimestampTz now);

/* leader/retention.c */
extern void leader_retention_clip(Leader *leader, TimestampTz now);
extern void leader_retention(Leader *leader, TimestampTz now);

/* leader/clock.c */
extern bool leader_watch_clock(Leader *leader);

/* leader/send.c */
extern void leader_send(Leader *leader);

/* leader/apply.c */
extern TimestampTz leader_when(const Leader *leader, TimestampTz provider_time, TimestampTz known);
extern void leader_apply(Leader *leader, CloudAnswer *answer);

/* leader/look.c */
extern const char *leader_look_refuses(Leader *leader, TimestampTz now);
extern void leader_look_new_key(Leader *leader);
extern void leader_look_lost_calls(Leader *leader);
extern void leader_look_clock_set(Leader *leader, int64 step);
extern void leader_look_list_begins(Leader *leader);
extern bool leader_look_list_holds(Leader *leader);
extern void leader_look_ask(Leader *leader, const char *pod_id, int64 op);
extern void leader_look_send(Leader *leader, TimestampTz now);
extern bool leader_look_answer(Leader *leader, CloudAnswer *answer);
/* leader/adopt.c */
extern bool leader_adopt_pod(Leader *leader, const CloudPod *pod, TimestampTz provider_now,
							 TimestampTz now, ReconcileSummary *summary);
extern void leader_watch_owner(Leader *leader, void *answer);

/* leader/bill.c */
extern void leader_bill_send(Leader *leader, TimestampTz now);
extern void leader_bill_answer(Leader *leader, CloudAnswer *answer);
extern void leader_bill_told(Leader *leader, const CloudPod *pod, const char *pod_id);

/* leader/reconcile.c */
extern void leader_reconcile(Leader *leader, void *answer);

/* leader/useless.c */
extern const char *leader_useless_pod(Leader *leader, const WorkerInfo *worker, const CloudPod *pod,
									  TimestampTz now);

#endif
