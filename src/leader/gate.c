/*
 * leader/gate.c
 *	  Which calls wait, and why: a gate for each kind of call, and one for each thing
 *	  that the provider says of our account.
 *
 * A gate closes when calls fail, for a time that grows; when that is over one call of
 * a kind goes through to see, and its success opens the gate. What the provider asks us
 * to wait is kept until its time, whatever else succeeds. What each gate stops, how it
 * backs off, and whom it tells is a table. Must not start calls, nor judge answers:
 * those are leader/send.c and the cloud_ files.
 */
#include "postgres.h"

#include "decide/backoff.h"
#include "base/clock.h"
#include "base/guc.h"
#include "leader/leader.h"
#include "store/alert.h"
#include "utils/timestamp.h"

#define CALL(call) (1U << (call))
#define ALL_CALLS (CALL(CLOUD_LAST_CALL + 1) - 1)

/* A failure is shown in the status for so long after it, where no further call was due. */
#define SHOWN_FOR (10 * USECS_PER_MINUTE)

typedef struct GateRule
{
	uint32 stops;  /* kinds of calls, one bit each */
	int tolerated; /* failures in a row that close it */
	int64 base_ms; /* backoff */
	int64 cap_ms;
	const char *alert;	 /* NULL: none */
	const char *subject; /* of the alert */
	int alert_after;	 /* failures in a row */
	bool silent;		 /* nothing of the status */
} GateRule;

static const GateRule rules[GATES] = {
	[CLOUD_CREATE] = { CALL(CLOUD_CREATE), 1, 1000, 60000 },
	[CLOUD_GET] = { CALL(CLOUD_GET), 1, 1000, 60000 },
	[CLOUD_LIST] = { CALL(CLOUD_LIST), 1, 1000, 60000 },
	/* Each delete has a backoff of its own; one that never works must not stop the others. */
	[CLOUD_DELETE] = { CALL(CLOUD_DELETE), 3, 1000, 30000 },
	[CLOUD_CATALOG] = { CALL(CLOUD_CATALOG), 1, 1000, 60000 },
	[CLOUD_ACCOUNT] = { CALL(CLOUD_ACCOUNT), 1, 1000, 60000 },
	[CLOUD_BILLING] = { CALL(CLOUD_BILLING), 1, 60000, 600000 },
	[GATE_RATE] = { ALL_CALLS, 1, 1000, 60000, ALERT_RATE_LIMITED, "account", 5 },
	[GATE_KEY] = { CALL(CLOUD_CREATE), 1, 1000, 60000, ALERT_KEY_REFUSED, "key", 1 },
	[GATE_RIGHTS] = { CALL(CLOUD_CREATE), 1, 1000, 60000, ALERT_KEY_REFUSED, "rights", 1 },
	[GATE_MONEY] = { CALL(CLOUD_CREATE), 1, 5000, 300000, ALERT_NO_MONEY, "account", 1 },
	[GATE_SETUP] = { 0, 1, 0, 0 },
	[GATE_NEW_KEY] = { 0, 1, 1000, 60000, ALERT_KEY_REFUSED, "new key", 1, true },
};

/* The gates that an answer's reason closes, besides that of its own kind. */
static const struct
{
	CloudReason reason;
	int gate;
} account_gates[] = {
	{ CR_RATE, GATE_RATE },
	{ CR_AUTH, GATE_KEY },
	{ CR_FORBIDDEN, GATE_RIGHTS },
	{ CR_BALANCE, GATE_MONEY },
};

/* In the order in which the status names one of several. */
static const int gravest[] = { GATE_SETUP, GATE_KEY,	  GATE_MONEY,	GATE_RIGHTS,
							   GATE_RATE,  CLOUD_LIST,	  CLOUD_DELETE, CLOUD_CREATE,
							   CLOUD_GET,  CLOUD_CATALOG, CLOUD_ACCOUNT };

static int
account_gate(CloudReason reason)
{
	for (int i = 0; i < lengthof(account_gates); i++)
		if (account_gates[i].reason == reason)
			return account_gates[i].gate;
	return -1;
}

/* Return the time at which a gate lets a call through again; one in the past means now. */
static TimestampTz
opens_at(const Gate *gate)
{
	return Max(gate->until, gate->asked_until);
}

/* Whether a gate is shut, or open only for the one call that finds out whether calls work. */
static bool
is_shut(const Gate *gate, int i)
{
	return gate->failures > 0 && gate->failures >= rules[i].tolerated;
}

/* Show in the status what keeps calls from working, and log it once while it stays the same. */
static void
publish(Leader *leader, TimestampTz now, bool success)
{
	ShmemState *state = shmem_state();
	const Gate *failing = NULL;
	TimestampTz retry_at = 0;

	for (int i = 0; i < lengthof(gravest); i++)
	{
		const Gate *gate = &leader->gates[gravest[i]];
		bool fails = gate->failures > 0 && now < opens_at(gate) + SHOWN_FOR;

		if (!fails && gate->asked_until <= now)
			continue;
		if (failing == NULL)
			failing = gate;
		retry_at = Max(retry_at, opens_at(gate));
	}
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->api_ok = failing == NULL;
	strlcpy(state->api_error, failing ? failing->why : "", SHMEM_TEXT);
	state->api_retry_at = retry_at;
	if (success)
		state->api_last_success = now;
	LWLockRelease(state->lock);
	if (strcmp(leader->api_failing, failing ? failing->what : "") == 0)
		return;
	strlcpy(leader->api_failing, failing ? failing->what : "", SHMEM_TEXT);
	if (failing)
		ereport(guc_log_level, (errmsg("gpu_orch: the provider cannot be used: %s", failing->why)));
	else
		ereport(guc_log_level, (errmsg("gpu_orch: the provider can be used again")));
}

/* Shut a gate for as many milliseconds as the provider asks for. */
static void
ask_to_wait(Gate *gate, int64 wait_ms, const char *why, TimestampTz now)
{
	if (now + wait_ms * 1000 <= gate->asked_until)
		return;
	gate->asked_until = now + wait_ms * 1000;
	gate->asked_wait = wait_ms * 1000;
	if (gate->failures == 0)
	{
		strlcpy(gate->what, why, SHMEM_TEXT);
		strlcpy(gate->why, why, SHMEM_TEXT);
	}
}

static void
fail(Leader *leader, int i, const char *what, const char *message, TimestampTz now)
{
	Gate *gate = &leader->gates[i];
	const GateRule *rule = &rules[i];

	gate->failures++;
	strlcpy(gate->what, what, SHMEM_TEXT);
	strlcpy(gate->why, message, SHMEM_TEXT);
	if (gate->failures < rule->tolerated)
		return;
	gate->wait = 1000 *
		backoff_ms(gate->failures - rule->tolerated + 1, rule->base_ms, rule->cap_ms, (uint64) now);
	gate->until = now + gate->wait;
}

/* Open a gate. A wait that the provider asked for goes on. */
void
leader_gate_lift(Leader *leader, int gate)
{
	leader->gates[gate].failures = 0;
	leader->gates[gate].until = 0;
}

/*
 * Note a failure for which there is no answer. `what` is the way in which it fails; `message` may
 * differ between two failures of one way.
 */
void
leader_gate_fail(Leader *leader, int gate, const char *what, const char *message)
{
	TimestampTz now = clock_now();

	fail(leader, gate, what, message, now);
	publish(leader, now, false);
}

/* A call was started. */
void
leader_gate_started(Leader *leader, CloudCall call)
{
	leader->gates[call].in_flight++;
	leader_stats_started(call);
}

/* Open the gates that a success of this kind of call opens. */
static void
note_success(Leader *leader, CloudCall call, TimestampTz now)
{
	leader_gate_lift(leader, call);
	leader_gate_lift(leader, GATE_KEY);
	if (leader->gates[GATE_RATE].asked_until <= now)
		leader_gate_lift(leader, GATE_RATE);
	if (call == CLOUD_CREATE || leader->gates[GATE_RIGHTS].closed_by == call)
		leader_gate_lift(leader, GATE_RIGHTS);
	if (call == CLOUD_CREATE)
		leader_gate_lift(leader, GATE_MONEY);
}

/* Close the gates that a failed call closes: its own kind's, and those of the account. */
static void
note_failure(Leader *leader, const CloudAnswer *answer, const char *what, TimestampTz now)
{
	const char *message = answer->message ? answer->message : "no answer";
	/* A key that may not read the bills does all that is needed of it. */
	int account = answer->call == CLOUD_BILLING && answer->reason != CR_RATE ?
		-1 :
		account_gate(answer->reason);
	bool said = answer->verdict == CLOUD_REFUSED;

	if (account >= 0)
	{
		fail(leader, account, what, message, now);
		leader->gates[account].closed_by = answer->call;
	}
	/* An account without money, say, is no reason to doubt the call; a delete without rights is. */
	if (account == GATE_RATE)
		return;
	if (!said || (account >= 0 && answer->call != CLOUD_CREATE))
		fail(leader, answer->call, what, message, now);
	else
		leader_gate_lift(leader, answer->call);
}

/* Whether a call succeeded. A GET that finds no pod did: that is an answer. */
static bool
succeeded(const CloudAnswer *answer)
{
	return answer->verdict == CLOUD_OK ||
		(answer->call == CLOUD_GET && answer->reason == CR_NOT_FOUND);
}

/* Note an answer: open and close the gates that it concerns. `what` names its reason. */
void
leader_gate_note(Leader *leader, const CloudAnswer *answer, const char *what)
{
	TimestampTz now = clock_now();
	Gate *own = &leader->gates[answer->call];

	own->in_flight = Max(0, own->in_flight - 1);
	if (succeeded(answer))
		note_success(leader, answer->call, now);
	else
		note_failure(leader, answer, what, now);
	if (answer->retry_after_ms >= 0)
		ask_to_wait(answer->reason == CR_SERVER ? own : &leader->gates[GATE_RATE],
					answer->retry_after_ms, "the provider asks to be left alone for a while", now);
	publish(leader, now, succeeded(answer));
}

/* When this kind of call may be made again, as far as is known; in the past: now. */
TimestampTz
leader_gate_opens(const Leader *leader, CloudCall call)
{
	TimestampTz until = 0;

	for (int i = 0; i < GATES; i++)
		if ((rules[i].stops & CALL(call)) != 0)
			until = Max(until, opens_at(&leader->gates[i]));
	return until;
}

/*
 * Return how many calls of this kind may be started now: none, one that finds out whether calls
 * work again, or any number.
 */
int
leader_gate_room(const Leader *leader, CloudCall call, TimestampTz now)
{
	if (leader_gate_opens(leader, call) > now)
		return 0;
	if (leader_gate_is_shut(leader, call))
		return leader->gates[call].in_flight == 0 ? 1 : 0;
	return PG_INT32_MAX;
}

/*
 * Whether the provider asked for no calls of this kind now. Our own backoff does not count: a
 * person who asks is the one call that finds out.
 */
bool
leader_gate_is_quiet(const Leader *leader, CloudCall call, TimestampTz now)
{
	return Max(opens_at(&leader->gates[GATE_RATE]), leader->gates[call].asked_until) > now;
}

/* Whether one call of this kind must show that calls work before others are started. */
bool
leader_gate_is_shut(const Leader *leader, CloudCall call)
{
	for (int i = 0; i < GATES; i++)
		if ((rules[i].stops & CALL(call)) != 0 && is_shut(&leader->gates[i], i))
			return true;
	return false;
}

/* Shorten waits that a clock that was set back made longer than they were. */
void
leader_gate_clip(Leader *leader, TimestampTz now)
{
	for (int i = 0; i < GATES; i++)
	{
		Gate *gate = &leader->gates[i];

		gate->until = Min(gate->until, now + gate->wait);
		gate->asked_until = Min(gate->asked_until, now + gate->asked_wait);
	}
}

/* Forget all failures: the provider may be another one. */
void
leader_gate_begin_anew(Leader *leader)
{
	for (int i = 0; i < GATES; i++)
	{
		leader_gate_lift(leader, i);
		leader->gates[i].asked_until = 0;
		leader->gates[i].in_flight = 0;
	}
}

/* Say for each gate whether its alert should be open; -1: the gate has no alert. */
static int
wants_alert(const Leader *leader, int i)
{
	if (rules[i].alert == NULL)
		return -1;
	return leader->gates[i].failures >= rules[i].alert_after;
}

static void
tell(Leader *leader, void *arg)
{
	TimestampTz now = clock_now();

	for (int i = 0; i < GATES; i++)
	{
		int wanted = wants_alert(leader, i);

		if (wanted >= 0 && leader->gates[i].told != 1 + wanted)
			store_alert(rules[i].alert, rules[i].subject, wanted ? leader->gates[i].why : NULL,
						now);
	}
}

/*
 * Raise and clear the alerts of the gates. To be called at each turn, outside of transactions;
 * does nothing where nothing has changed.
 */
void
leader_gate_tell(Leader *leader)
{
	bool news = false;

	for (int i = 0; i < GATES; i++)
	{
		int wanted = wants_alert(leader, i);

		news = news || (wanted >= 0 && leader->gates[i].told != 1 + wanted);
	}
	if (!news || !leader_step(leader, "telling of the provider", tell, NULL))
		return;
	for (int i = 0; i < GATES; i++)
		leader->gates[i].told = 1 + wants_alert(leader, i);
}

/* Forget which alerts are raised: the database may be another one. */
void
leader_gate_tell_anew(Leader *leader)
{
	for (int i = 0; i < GATES; i++)
		leader->gates[i].told = 0;
}
