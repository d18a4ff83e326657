/*
 * leader/look.c
 *	  What makes a look at the provider worth believing: the same thing twice, in the
 *	  account in which our pods are, and single pods asked for by their ids.
 *
 * The account is read beside the lists and pinned at its first sight. With a key of
 * another one nothing is created and nothing proved. Holds what the leader remembers
 * of its looks; what follows from them is for leader/reconcile.c.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/inject.h"
#include "leader/look.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/op.h"
#include "store/sight.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Two observations that agree are never asked to be further apart, in microseconds. */
#define LONGEST_GAP (30 * USECS_PER_SEC)

/* Time between two looks at the account. */
#define ACCOUNT_INTERVAL (60 * USECS_PER_SEC)

/* So many intervals without a complete list, and nothing is created. */
#define LIST_MAX_INTERVALS 10

/* A balance of fewer hours at the present spend is low. */
#define LOW_HOURS 24

StaticAssertDecl(sizeof(Absence) <= 128, "the leader's table of absences has room for one");

/* Return what this file remembers. Made at the first use, lives as long as the process. */
static LeaderLook *
look_of(Leader *leader)
{
	if (leader->look == NULL)
		leader->look = MemoryContextAllocZero(leader->memory, sizeof(LeaderLook));
	return leader->look;
}

/* Return how far apart two looks must be to confirm each other, in microseconds. */
int64
leader_look_gap(void)
{
	return Min(LONGEST_GAP, guc_us(guc_reconcile_interval));
}

/*
 * Note that a list that was asked for at `started` shows a pod that nobody wants (`shown`), or
 * misses one. Returns true if the list of an earlier round said the same, long enough before; else
 * the next list is asked for early.
 */
bool
leader_look_confirmed(Leader *leader, const char *pod_id, bool shown, uint64 round,
					  TimestampTz started, TimestampTz now, Absence **absence)
{
	bool found;
	Absence *entry = hash_search(leader->absences, pod_id, HASH_ENTER, &found);

	found = found && entry->shown == shown;
	if (!found)
	{
		entry->shown = shown;
		entry->since = now;
		entry->denials = 0;
		entry->denied_at = 0;
		entry->gone_at = 0;
	}
	entry->round = round;
	if (absence != NULL)
		*absence = entry;
	if (found && started - entry->since >= leader_look_gap())
		return true;
	leader->next_reconcile = Min(leader->next_reconcile, entry->since + leader_look_gap());
	return false;
}

/* Forget what this round did not see again. */
void
leader_look_forget_others(Leader *leader, uint64 round)
{
	HASH_SEQ_STATUS scan;
	Absence *absence;

	hash_seq_init(&scan, leader->absences);
	while ((absence = hash_seq_search(&scan)) != NULL)
		if (absence->round != round)
			hash_search(leader->absences, absence->pod_id, HASH_REMOVE, NULL);
}

/*
 * Whether a pod that a list does not show may be taken for gone: the list has `listed` pods of
 * ours, so it is of our account, or the key is known to be of that account. Where no account was
 * ever read, a key that made or deleted a pod of ours will do.
 */
bool
leader_look_has_sign(Leader *leader, int64 listed)
{
	LeaderLook *look = look_of(leader);

	if (look->account == ACCOUNT_OTHER)
		return false;
	if (listed > 0 || look->account == ACCOUNT_OURS)
		return true;
	return leader->installation.account[0] == '\0' && look->key_proved;
}

/* Return why no create may be sent now, or NULL. */
const char *
leader_look_refuses(Leader *leader, TimestampTz now)
{
	LeaderLook *look = look_of(leader);
	ShmemState *state = shmem_state();
	TimestampTz last;

	if (look->account == ACCOUNT_OTHER)
		return "the key is of another account";
	if (look->adoption_owed)
		return "a pod that is there already could not be adopted";
	LWLockAcquire(state->lock, LW_SHARED);
	last = state->last_reconcile;
	LWLockRelease(state->lock);
	if (last != 0 &&
		now - last > LIST_MAX_INTERVALS * guc_us(guc_reconcile_interval) + guc_us(guc_http_timeout))
		return "the provider's list could not be read for long";
	return NULL;
}

/* There is another key: it may be of another account. */
void
leader_look_new_key(Leader *leader)
{
	LeaderLook *look = look_of(leader);

	look->key++;
	look->account = ACCOUNT_UNREAD;
	look->key_proved = false;
	look->next_account = 0;
}

/* Forget the calls under way: they were given up with their session. */
void
leader_look_lost_calls(Leader *leader)
{
	LeaderLook *look = look_of(leader);

	look->account_in_flight = false;
	leader->bill_in_flight = false;
	memset(look->asked, 0, sizeof(look->asked));
}

/*
 * Make up for a clock that was set by so many microseconds: observations from before do not
 * confirm later ones, and calls under way keep their age.
 */
void
leader_look_clock_set(Leader *leader, int64 step)
{
	LeaderLook *look = look_of(leader);

	leader_look_forget_others(leader, 0);
	for (int i = 0; i < LOOK_MAX_ASKED; i++)
		look->asked[i].started += step;
	if (leader->list_started != 0)
		leader->list_started += step;
}

/* A list is asked for, with the key of now. */
void
leader_look_list_begins(Leader *leader)
{
	look_of(leader)->list_key = look_of(leader)->key;
}

/* Whether the list that ends now was asked for with the key that is still used. */
bool
leader_look_list_holds(Leader *leader)
{
	return look_of(leader)->list_key == look_of(leader)->key;
}

/*
 * Have a pod asked for by its id. op is the delete that the answer may prove, LOOK_BILLED, or 0. A
 * pod is asked for once at a time.
 */
void
leader_look_ask(Leader *leader, const char *pod_id, int64 op)
{
	LookAsked *free_place = NULL;

	for (int i = 0; i < LOOK_MAX_ASKED; i++)
	{
		LookAsked *asked = &look_of(leader)->asked[i];

		if (strcmp(asked->pod_id, pod_id) == 0)
		{
			if (!asked->called && asked->op == 0)
				asked->op = op;
			return;
		}
		if (asked->pod_id[0] == '\0')
			free_place = asked;
	}
	if (free_place == NULL)
		return;
	strlcpy(free_place->pod_id, pod_id, sizeof(free_place->pod_id));
	free_place->op = op;
	free_place->called = false;
}

/* Start the calls that are due: the account now and then, and single pods. */
void
leader_look_send(Leader *leader, TimestampTz now)
{
	LeaderLook *look = look_of(leader);
	char *error = NULL;

	if (leader->cloud == NULL)
		return;
	if (!look->account_in_flight && look->next_account <= now &&
		leader_gate_room(leader, CLOUD_ACCOUNT, now) > 0)
	{
		look->next_account = now + ACCOUNT_INTERVAL;
		look->account_in_flight = cloud_start_account(leader->cloud, TAG_ACCOUNT, &error);
		if (look->account_in_flight)
			leader_gate_started(leader, CLOUD_ACCOUNT);
	}
	look->next_account = Min(look->next_account, now + ACCOUNT_INTERVAL);
	for (int i = 0; i < LOOK_MAX_ASKED; i++)
	{
		LookAsked *asked = &look->asked[i];

		if (asked->pod_id[0] == '\0' || asked->called ||
			leader_gate_room(leader, CLOUD_GET, now) == 0)
			continue;
		asked->called = cloud_start_get(leader->cloud, TAG_LOOK - i, asked->pod_id, &error);
		asked->started = now;
		asked->key = look->key;
		if (asked->called)
			leader_gate_started(leader, CLOUD_GET);
		else
			asked->pod_id[0] = '\0';
	}
}

/* Raise or clear the alerts about the account's money. */
static void
watch_balance(const CloudAnswer *answer, TimestampTz now)
{
	int64 left = answer->balance_micros;
	int64 rate = answer->spend_micros;
	char *detail = NULL;

	if (left < 0)
		return;
	if (left > 0 && rate > 0 && left / LOW_HOURS < rate)
		detail =
			psprintf("%.2f dollars are left, at %.2f an hour", left / 1000000.0, rate / 1000000.0);
	store_alert(ALERT_BALANCE_LOW, "account", detail, now);
	store_alert(ALERT_BALANCE_EMPTY, "account", left == 0 ? "nothing is left" : NULL, now);
}

/* Take the account of a key: remember the first one, and compare later ones with it. */
static void
apply_account(Leader *leader, void *arg)
{
	const CloudAnswer *answer = arg;
	Installation *installation = &leader->installation;
	TimestampTz now = clock_now();
	bool ours;

	if (!store_installation_read(installation))
		return;
	if (installation->account[0] == '\0')
	{
		/* A copy that may not act has no account to compare with. */
		if (installation->hold)
			return;
		store_installation_pin(answer->account);
		strlcpy(installation->account, answer->account, sizeof(installation->account));
		store_event("account_pinned", "installation", store_detail("account", answer->account),
					now);
	}
	INJECT("account.apply");
	ours = strcmp(installation->account, answer->account) == 0;
	look_of(leader)->account = ours ? ACCOUNT_OURS : ACCOUNT_OTHER;
	store_alert(ALERT_WRONG_ACCOUNT, "installation",
				ours ? NULL :
					   psprintf("the key is of account \"%s\", the pods are in \"%s\"",
								answer->account, installation->account),
				now);
	if (ours)
		watch_balance(answer, now);
}

/* A pod that was asked for, with the answer. */
typedef struct Told
{
	const LookAsked *asked;
	bool there; /* and has a name, if it matters */
	const char *name;
} Told;

/*
 * Apply what the provider said of the pod of an answered delete. Proves nothing in another
 * account. Writes only a change.
 */
static void
deleted_told(Leader *leader, const Told *told, const CloudOpRow *op, TimestampTz now)
{
	if (op->http_status != 204 || told->asked->started <= op->answered_at ||
		told->asked->key != look_of(leader)->key || !leader_look_has_sign(leader, 0))
		return;
	if (!told->there && op->denied_at == 0)
		store_sight_denied(op->id, now);
	else if (told->there && (op->denied_at != 0 || op->absent_looks > 0))
		store_sight_shown(op->id, true);
}

/*
 * Apply what the provider said of a pod whose id only its worker named. The pod is ours if it
 * bears the op's name; if not, nothing is deleted under that id, and looking settles the rest.
 */
static void
look_apply_told(Leader *leader, void *arg)
{
	const Told *told = arg;
	TimestampTz now = clock_now();
	CloudOpRow op;

	/* A list may have given the worker another pod meanwhile. */
	if (!store_op_lock(told->asked->op, &op) || strcmp(op.pod_id, told->asked->pod_id) != 0)
		return;
	if (op.state == OP_SENT)
		deleted_told(leader, told, &op, now);
	if (op.state != OP_PLANNED)
		return;
	if (told->there && strcmp(told->name, op.pod_name) == 0)
	{
		store_op_verify(op.id);
		return;
	}
	store_op_sent(op.id, leader->epoch, now);
	store_op_answer(op.id, OP_SENT, 404, told->there ? "not_ours" : "not_found", NULL, NULL, 0,
					now);
	if (told->there)
		store_event("pod_not_ours", op.pod_name, store_detail("pod_id", op.pod_id), now);
}

/*
 * Record in leader->absences what the provider said about one pod. A pod with an open
 * delete keeps its entry until the next list.
 */
static void
remember_told(Leader *leader, const Told *told, TimestampTz now)
{
	bool found;
	Absence *absence =
		hash_search(leader->absences, told->asked->pod_id,
					told->asked->op == 0 || told->there ? HASH_FIND : HASH_ENTER, &found);

	if (absence == NULL)
		return;
	if (!found || told->there)
	{
		absence->since = now;
		absence->denials = 0;
		absence->gone_at = 0;
	}
	if (told->there)
		return;
	if (!found)
	{
		absence->shown = false;
		absence->round = 0;
	}
	if (absence->gone_at == 0)
		absence->gone_at = now;
	if (absence->denials == 0 || now - absence->denied_at >= leader_look_gap())
	{
		absence->denials++;
		absence->denied_at = now;
	}
}

/* The answer about a single pod. */
static void
pod_told(Leader *leader, CloudAnswer *answer)
{
	LeaderLook *look = look_of(leader);
	int place = (int) (TAG_LOOK - answer->tag);
	LookAsked asked;
	Told told = { .asked = &asked };
	TimestampTz now = clock_now();

	if (place < 0 || place >= LOOK_MAX_ASKED || !look->asked[place].called)
		return;
	look->asked[place].called = false;
	told.there = answer->verdict == CLOUD_OK;
	/* What got no answer is asked again when such calls work again. */
	if (!told.there && answer->reason != CR_NOT_FOUND)
		return;
	asked = look->asked[place];
	look->asked[place].pod_id[0] = '\0';
	if (told.there)
		told.name = answer->pods[0].name;
	if (asked.op == LOOK_BILLED)
	{
		if (asked.key == look->key && leader_look_has_sign(leader, 0))
			leader_bill_told(leader, told.there ? &answer->pods[0] : NULL, asked.pod_id);
		return;
	}
	if (asked.key == look->key && leader_look_has_sign(leader, 0))
		remember_told(leader, &told, now);
	if (asked.op != 0)
		(void) leader_step(leader, "applying a look at a pod", look_apply_told, &told);
	else if (!told.there)
		leader->next_reconcile = Min(leader->next_reconcile, now + LOOK_SOON_MS * (int64) 1000);
}

/* Take an answer if it belongs to a look. Returns false if it does not. */
bool
leader_look_answer(Leader *leader, CloudAnswer *answer)
{
	LeaderLook *look = look_of(leader);

	switch (answer->call)
	{
		case CLOUD_GET:
			pod_told(leader, answer);
			return true;
		case CLOUD_ACCOUNT:
			look->account_in_flight = false;
			/* Without it nothing is proved: it is asked for again when its gate opens. */
			if (answer->verdict != CLOUD_OK)
				look->next_account = 0;
			else if (look->next_account != 0)
				(void) leader_step(leader, "comparing accounts", apply_account, answer);
			return true;
		case CLOUD_CREATE:
		case CLOUD_DELETE:
			look->key_proved |= answer->verdict == CLOUD_OK;
			return false;
		default:
			return false;
	}
}
