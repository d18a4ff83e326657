/*
 * leader/look.h
 *	  What the leader keeps of its looks at the provider, from one to the next.
 */
#ifndef GPU_ORCH_LEADER_LOOK_H
#define GPU_ORCH_LEADER_LOOK_H

#include "leader/leader.h"

/* At most so many single pods are asked for at a time. */
#define LOOK_MAX_ASKED 32

/* In place of a delete: a pod that is billed although we take it for gone. */
#define LOOK_BILLED (-1)

/* A pod as a list showed it to be missing or not wanted; another one must confirm. */
typedef struct Absence
{
	char pod_id[64];
	bool shown;			   /* it was not wanted; else it was missing */
	TimestampTz since;	   /* when a list first said so */
	uint64 round;		   /* the reconcile that saw it last */
	int denials;		   /* times that the provider, asked for this pod alone, had none */
	TimestampTz denied_at; /* the last of these */
	TimestampTz gone_at;   /* the first of all since the pod was last shown; 0: none yet */
} Absence;

/* Whose the key is, as far as is known. */
typedef enum LookAccount
{
	ACCOUNT_UNREAD, /* not read yet with this key */
	ACCOUNT_OURS,
	ACCOUNT_OTHER
} LookAccount;

/* A pod that is to be asked for by its id, or was. */
typedef struct LookAsked
{
	char pod_id[64];	 /* "": the place is free */
	int64 op;			 /* delete whose pod it is, or LOOK_BILLED; 0: none */
	bool called;		 /* its call is under way */
	TimestampTz started; /* since then */
	uint64 key;			 /* with this one */
} LookAsked;

typedef struct LeaderLook
{
	LookAccount account;
	bool key_proved; /* a pod was made or deleted with this key */
	uint64 key;		 /* goes up with each key */
	uint64 list_key; /* under which the list in flight was asked for */
	bool account_in_flight;
	TimestampTz next_account;
	bool doubted;		/* the last list was not believed */
	bool adoption_owed; /* the last list shows a pod of a create that is only planned */
	LookAsked asked[LOOK_MAX_ASKED];
} LeaderLook;

extern int64 leader_look_gap(void);
extern bool leader_look_confirmed(Leader *leader, const char *pod_id, bool shown, uint64 round,
								  TimestampTz started, TimestampTz now, Absence **absence);
extern void leader_look_forget_others(Leader *leader, uint64 round);
extern bool leader_look_has_sign(Leader *leader, int64 listed);

#endif
