/*
 * leader/main.c
 *	  The leader: the one background worker of an installation.
 *
 * Life: it is registered at server start for the database named by
 * gpu_orch.database and restarted by the postmaster whenever it ends, since it
 * never ends with exit code 0. A start that fails again and again is slept off
 * before connecting, where the wait blocks nobody. While gpu_orch.enabled is off
 * it stays unconnected, so that the database can be dropped or copied.
 *
 * Each turn of the loop runs short transactions, each behind the guard of
 * db/ext_guard.c, and waits outside of them for its latch, the provider's sockets or
 * the time, whichever is first. An error ends one step, not the leader. SIGTERM is
 * the server's own `die`; there is no private flag, no LISTEN, and no clean-up at
 * exit.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "decide/backoff.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/inject.h"
#include "leader/leader.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/timestamp.h"
#include "base/wake.h"
#include "db/xact_block.h"

/* Backoff of starts that fail. */
#define START_BASE_MS 5000
#define START_CAP_MS (5 * 60 * 1000)

PGDLLEXPORT void gpu_orch_leader_main(Datum arg);

static void
set_doing(const char *doing)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	strlcpy(state->leader_doing, doing, SHMEM_TEXT);
	LWLockRelease(state->lock);
}

/* The longest that the leader rests from commits, in microseconds. */
#define LONGEST_REST USECS_PER_SEC

/* An op that waits for its time is looked at again after this at the latest. */
#define LONGEST_OP_WAIT USECS_PER_MINUTE

/* At exit: whoever reads the status must see that nobody is there. */
static void
leave(int code, Datum arg)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (state->leader_pid == MyProcPid)
	{
		state->leader_pid = 0;
		state->leader_latch = NULL;
		state->leader_doing[0] = '\0';
		state->first_look_done = false;
		state->provider.key[0] = '\0';
		state->provider.key_since = 0;
	}
	LWLockRelease(state->lock);
	ConditionVariableBroadcast(&state->answered);
}

static void
enter(void)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->leader_pid = MyProcPid;
	state->leader_latch = MyLatch;
	state->leader_started = clock_now();
	state->grace_since = state->leader_started;
	state->last_tick = 0;
	state->first_look_done = false;
	state->api_ok = false;
	state->api_error[0] = '\0';
	LWLockRelease(state->lock);
	before_shmem_exit(leave, (Datum) 0);
}

/* Wait on the latch, unconnected or not; signals and the postmaster's death act. */
static void
sleep_ms(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Sleep after starts that failed, and until gpu_orch.enabled is on. */
static void
wait_for_start(void)
{
	ShmemState *state = shmem_state();
	TimestampTz until;
	int failed;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	failed = state->failed_starts++;
	LWLockRelease(state->lock);
	until = GetCurrentTimestamp();
	if (failed > 0)
	{
		leader_note_error("starting",
						  "the last start ended before its first turn; the server's log says why");
		until += 1000 * backoff_ms(failed, START_BASE_MS, START_CAP_MS, (uint64) MyProcPid);
	}
	while (GetCurrentTimestamp() < until)
		sleep_ms((long) ((until - GetCurrentTimestamp()) / 1000 + 1));
	while (!guc_enabled)
		sleep_ms(3600 * 1000L);
}

static void
override(const char *name, const char *value)
{
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_USERSET, PGC_S_OVERRIDE);
}

/* What a site sets for its sessions must not reach the leader. */
static void
override_site_defaults(void)
{
	override("default_transaction_read_only", "off");
	override("default_transaction_isolation", "read committed");
	override("default_transaction_deferrable", "off");
	override("statement_timeout", "0");
	override("lock_timeout", "5s");
	override("idle_in_transaction_session_timeout", "0");
	override("idle_session_timeout", "0");
	override("transaction_timeout", "0");
	override("max_parallel_workers_per_gather", "0");
	override("jit", "off");
	override("row_security", "on");
	override("search_path", "pg_catalog, pg_temp");
	/* With less, what is to be called for could be lost by a failover. */
	override("synchronous_commit", "on");
	override("application_name", "gpu_orch leader");
}

/* Note an error for the status, and log it once for as long as it repeats. */
void
leader_note_error(const char *doing, const char *message)
{
	ShmemState *state = shmem_state();
	char text[SHMEM_TEXT];
	bool news;

	snprintf(text, sizeof(text), "%s: %s", doing, message);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	news = strcmp(state->last_error, text) != 0;
	strlcpy(state->last_error, text, SHMEM_TEXT);
	state->last_error_at = clock_now();
	LWLockRelease(state->lock);
	if (news)
		ereport(WARNING, (errmsg("gpu_orch: %s", text)));
}

/*
 * Run one step in a transaction of its own, behind the guard, as the extension's owner. False when the
 * guard did not let it, or when it failed: then everything it did is undone and
 * the error is noted, once for as long as it repeats.
 */
bool
leader_step(Leader *leader, const char *doing, LeaderStep step, void *arg)
{
	volatile bool done = false;

	PG_TRY();
	{
		xact_begin(doing);
		leader->verdict = ext_guard_check();
		if (leader->verdict == GUARD_GO && store_installation_is_fed())
			leader->verdict = GUARD_SUBSCRIBER;
		if (leader->verdict == GUARD_GO)
		{
			xact_work_as(ext_owner());
			step(leader, arg);
			done = true;
		}
		xact_commit();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(leader->scratch);
		error = CopyErrorData();
		FlushErrorState();
		xact_abort();
		MemoryContextSwitchTo(leader->scratch);
		leader_note_error(doing, error->message);
		done = false;
	}
	PG_END_TRY();
	return done;
}

/* Answer those who asked for a reconcile, up to that number of requests. */
void
leader_answer_reconcile(uint64 asked, bool failed)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	asked = Min(asked, state->reconcile_asked);
	if (state->reconcile_done < asked)
	{
		state->reconcile_done = asked;
		state->reconcile_failed = failed;
	}
	LWLockRelease(state->lock);
	ConditionVariableBroadcast(&state->answered);
}

/* Create nothing before the provider's list has been read once more, now. */
void
leader_look_first(Leader *leader)
{
	shmem_look_first();
	leader->next_reconcile = clock_now();
	leader->next_catalog = leader->next_reconcile;
	leader_gate_tell_anew(leader);
}

/*
 * Between steps there is nothing that a cancel request could end, so it is dropped;
 * SIGTERM and the server's barriers act.
 */
static void
check_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/* The earlier of two times, where 0 is never. */
static TimestampTz
main_sooner(TimestampTz a, TimestampTz b)
{
	if (a == 0 || b == 0)
		return Max(a, b);
	return Min(a, b);
}

/* How long the next turn may wait, in milliseconds. */
static long
time_to_wait(const Leader *leader)
{
	TimestampTz now = clock_now();
	TimestampTz until = leader->next_tick;
	long wait;

	until = main_sooner(until, leader->decide_at);
	if (leader->verdict == GUARD_GO)
	{
		until = main_sooner(until, leader->next_due);
		until = Min(until, leader->next_count);
		until = Min(until, leader->next_retention);
		if ((wake_pending() & ADMIT_FLAGS) != 0)
			until = Min(until, leader->admit_after);
		/* Before there is an installation nothing is asked of the provider. */
		if (leader->cloud != NULL && leader->epoch != 0)
		{
			until = main_sooner(until, leader->next_op_due);
			if (leader->list_started == 0)
				until = main_sooner(
					until, Max(leader->next_reconcile, leader_gate_opens(leader, CLOUD_LIST)));
		}
	}
	wait = until <= now ? 0 : (long) ((until - now) / 1000 + 1);
	if (leader->cloud != NULL)
	{
		long cloud_wait = cloud_timeout_ms(leader->cloud);

		if (cloud_wait >= 0)
			wait = Min(wait, cloud_wait);
	}
	return wait;
}

/*
 * Wait for the latch, the provider's sockets, or the time; not at all if somebody woke us
 * or the files changed since the turn began: waits for locks and buffers reset the latch.
 * The set is made anew when the provider's descriptor changes, never per wait.
 */
static void
wait_for_events(Leader *leader, uint64 wakes_before)
{
	static WaitEventSet *set = NULL;
	static uint64 watched = 0;
	int fd = leader->cloud ? cloud_fd(leader->cloud) : -1;
	bool woken = pg_atomic_read_u64(&shmem_state()->wakes) != wakes_before || ConfigReloadPending;
	WaitEvent event;

	if (set == NULL || leader->cloud_generation != watched)
	{
		if (set != NULL)
			FreeWaitEventSet(set);
		set = compat_create_wait_event_set(3);
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		if (fd >= 0)
			AddWaitEventToSet(set, WL_SOCKET_READABLE, fd, NULL, NULL);
		watched = leader->cloud_generation;
	}
	(void) WaitEventSetWait(set, woken ? 0 : time_to_wait(leader), &event, 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* Drive the calls that are in flight and apply the answers as they come. */
static void
drive_cloud(Leader *leader)
{
	CloudAnswer answer;

	if (leader->cloud == NULL)
		return;
	cloud_drive(leader->cloud);
	while (leader->cloud != NULL && cloud_next_answer(leader->cloud, &answer))
	{
		check_interrupts();
		leader_apply(leader, &answer);
		leader->decide_at = clock_now();
	}
}

/*
 * Return how long to rest, in microseconds, after work that commits asked for and that began at
 * `start`: nine times as long as the work took, so that commits without end take a tenth of a
 * core.
 */
static int64
rest_after(instr_time start)
{
	instr_time took;

	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	return Min(9 * (int64) INSTR_TIME_GET_MICROSEC(took), LONGEST_REST);
}

/* One turn: whatever is due now, and not more. */
static void
turn(Leader *leader)
{
	ShmemState *state = shmem_state();
	uint32 flags = wake_pending();
	TimestampTz now;
	bool asked;
	bool clock_followed;

	clock_followed =
		leader->epoch == 0 || leader->verdict != GUARD_GO || leader_watch_clock(leader);
	drive_cloud(leader);
	now = clock_now();
	/* A clock that was set back must not put anything off. */
	leader->next_tick = Min(leader->next_tick, now + guc_us(guc_cycle_interval));
	leader->next_reconcile = Min(leader->next_reconcile, now + guc_us(guc_reconcile_interval));
	leader->decide_after = Min(leader->decide_after, now + LONGEST_REST);
	leader->admit_after = Min(leader->admit_after, now + LONGEST_REST);
	leader->next_catalog = Min(leader->next_catalog, now + CATALOG_INTERVAL);
	leader->next_op_due = Min(leader->next_op_due, now + LONGEST_OP_WAIT);
	leader_count_clip(leader, now);
	leader_retention_clip(leader, now);
	leader_gate_clip(leader, now);
	if (flags != 0 && leader->decide_at == 0)
		leader->decide_at = Max(now + guc_us(guc_event_debounce), leader->decide_after);
	if (leader->verdict == GUARD_GO)
	{
		if ((flags & ADMIT_FLAGS) != 0 && leader->admit_after <= now)
		{
			instr_time start;

			INSTR_TIME_SET_CURRENT(start);
			(void) leader_admit(leader, wake_take(ADMIT_FLAGS));
			leader->admit_after = clock_now() + rest_after(start);
		}
		if (clock_followed && leader->next_due != 0 && leader->next_due <= now)
			(void) leader_end_overdue(leader);
	}

	LWLockAcquire(state->lock, LW_SHARED);
	asked = state->cycle_done < state->cycle_asked ||
		(state->reconcile_done < state->reconcile_asked && leader->list_started == 0);
	LWLockRelease(state->lock);
	if (asked || leader->next_tick <= now || (leader->decide_at != 0 && leader->decide_at <= now))
	{
		instr_time start;

		(void) wake_take(WAKE_DECIDE);
		INSTR_TIME_SET_CURRENT(start);
		leader_tick(leader);
		leader->decide_after = clock_now() + rest_after(start);
	}
	INJECT("leader.ticked");
	if (leader->verdict == GUARD_GO)
	{
		leader_count(leader, now);
		leader_retention(leader, now);
	}
	leader_send(leader);
	set_doing(ext_guard_explain(leader->verdict));
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->failed_starts = 0;
	LWLockRelease(state->lock);
}

/* The entry point of the background worker. Never returns. */
void
gpu_orch_leader_main(Datum arg)
{
	Leader *leader;
	HASHCTL control = { 0 };

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	/* The server throws away a reload that comes between the fork and our handler. */
	ProcessConfigFile(PGC_SIGHUP);
	wait_for_start();
	BackgroundWorkerInitializeConnection(guc_database, NULL, 0);
	override_site_defaults();
	enter();

	leader = MemoryContextAllocZero(TopMemoryContext, sizeof(Leader));
	leader->memory =
		AllocSetContextCreate(TopMemoryContext, "gpu_orch leader", ALLOCSET_DEFAULT_SIZES);
	leader->scratch =
		AllocSetContextCreate(TopMemoryContext, "gpu_orch turn", ALLOCSET_DEFAULT_SIZES);
	control.keysize = 64;
	control.entrysize = 128;
	control.hcxt = leader->memory;
	leader->absences =
		hash_create("gpu_orch absences", 64, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	ereport(guc_log_level, (errmsg("gpu_orch: the leader works in database \"%s\"", guc_database)));

	INJECT("leader.start");
	/* The first cycle looks at everything anyway. */
	(void) wake_take(~(uint32) 0);
	for (;;)
	{
		uint64 wakes = pg_atomic_read_u64(&shmem_state()->wakes);

		check_interrupts();
		MemoryContextSwitchTo(leader->scratch);
		MemoryContextReset(leader->scratch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			leader->next_tick = 0;
			leader->next_retention = 0;
		}
		if (!guc_enabled)
		{
			ereport(guc_log_level,
					(errmsg("gpu_orch: the leader leaves: gpu_orch.enabled is off")));
			proc_exit(1);
		}
		turn(leader);
		wait_for_events(leader, wakes);
	}
}
