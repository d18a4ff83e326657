/*
 * leader.h
 *	  What the parts of the leader share.
 */
#ifndef GPU_ORCH_LEADER_H
#define GPU_ORCH_LEADER_H

#include "cloud.h"
#include "ext_guard.h"
#include "shmem.h"
#include "store_installation.h"
#include "utils/hsearch.h"

/* Tags of calls that are no ops. */
#define TAG_LIST (-1)
#define TAG_CATALOG (-2)
#define TAG_ACCOUNT (-3)
#define TAG_LOOK (-100)			/* and below: looks at single pods */

/* After a delete or an unknown outcome the list is read again this soon, in ms. */
#define LOOK_SOON_MS 1000

/* Time between two looks at the prices; the shorter while some are missing. */
#define CATALOG_INTERVAL (3600 * USECS_PER_SEC)
#define CATALOG_RETRY (60 * USECS_PER_SEC)

typedef struct Leader
{
	MemoryContext memory;		/* as long as the process */
	MemoryContext scratch;		/* reset at each turn */

	GuardVerdict verdict;		/* of the last step */
	int64		epoch;			/* 0: not begun in this extension yet */
	Installation installation;

	CloudSession *cloud;		/* NULL: no usable key or address */
	uint64		cloud_generation;	/* goes up whenever cloud changes */
	char	   *cloud_url;		/* what it was opened with */
	TimestampTz key_changed;	/* modification time of the key's file */
	int			api_failures;	/* in a row */
	char		api_failing[SHMEM_TEXT];	/* in which way, as logged; empty while it works */
	TimestampTz api_retry_at;
	HTAB	   *absences;		/* pods that one list has shown to be missing or not wanted */
	struct LeaderLook *look;	/* what leader_look.c remembers */

	TimestampTz next_tick;
	TimestampTz next_recheck;
	TimestampTz next_due;		/* of a scheduled task or a deadline; 0: none */
	TimestampTz next_op_due;	/* when a planned op may be sent; 0: none waits for its time */
	TimestampTz decide_at;		/* a decision is wanted then; 0: not asked for */
	TimestampTz decide_after;	/* no decision that a commit asks for before this */
	TimestampTz admit_after;	/* nor anything released that a commit asks for */
	TimestampTz next_reconcile;
	TimestampTz next_catalog;
	TimestampTz last_catalog;	/* when prices were last asked for */
	int64		unpriced;		/* offers whose price was not known at the last tick */
	TimestampTz list_started;	/* 0: none in flight */
	bool		catalog_in_flight;
	uint64		reconcile_answering;
	CycleSummary actions;		/* since the last cycle was reported */
} Leader;

typedef void (*LeaderStep) (Leader *leader, void *arg);

/* leader_main.c */
extern bool leader_step(Leader *leader, const char *doing, LeaderStep step, void *arg);
extern void leader_note_error(const char *doing, const char *message);
extern void leader_api_failed(Leader *leader, const char *what, const char *message,
							  int64 retry_after_ms);
extern void leader_api_worked(Leader *leader);
extern void leader_answer_reconcile(uint64 asked, bool failed);

extern void leader_look_first(Leader *leader);

/* leader_key.c */
extern void leader_open_cloud(Leader *leader);

/* leader_tick.c */
extern bool leader_admit(Leader *leader, uint32 flags);
extern bool leader_end_overdue(Leader *leader);
extern void leader_tick(Leader *leader);

/* leader_send.c */
extern void leader_send(Leader *leader);

/* leader_apply.c */
extern void leader_apply(Leader *leader, CloudAnswer *answer);

/* leader_look.c */
extern const char *leader_look_refuses(Leader *leader, TimestampTz now);
extern void leader_look_new_key(Leader *leader);
extern void leader_look_lost_calls(Leader *leader);
extern void leader_look_list_begins(Leader *leader);
extern bool leader_look_list_holds(Leader *leader);
extern void leader_look_ask(Leader *leader, const char *pod_id, int64 op);
extern void leader_look_send(Leader *leader, TimestampTz now);
extern bool leader_look_answer(Leader *leader, CloudAnswer *answer);
/* leader_adopt.c */
extern bool leader_adopt_pod(Leader *leader, const CloudPod *pod, TimestampTz provider_now,
							 TimestampTz now, ReconcileSummary *summary);
extern void leader_watch_owner(Leader *leader, void *answer);

/* leader_reconcile.c */
extern void leader_reconcile(Leader *leader, void *answer);

#endif
