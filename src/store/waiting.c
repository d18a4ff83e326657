/*
 * store/waiting.c
 *	  The tasks that wait: all access to waiting.
 *
 * A task stands in exactly one place: waiting, ready_queue, lease, or ended with a final
 * attempt. On its way to being ready it passes the gates of one table, in their order, and
 * waits at the first that is shut. Whoever places a task walks the gates, and so does the
 * leader with those that may go on: what a pass of the leader costs depends on how many
 * tasks it releases, not on how many wait.
 */
#include "postgres.h"

#include "base/inject.h"
#include "store/cancel.h"
#include "store/dependency.h"
#include "store/tenant.h"
#include "store/task.h"
#include "store/waiting.h"

/* A task on its way through the gates. */
typedef struct Passage
{
	TaskSlot slot;
	TimestampTz due_at;		/* 0: at once */
	bool depends_on_others; /* false: it is known that it does not */
	TimestampTz now;
} Passage;

/* A gate: one row for each state in which tasks wait. */
typedef struct Gate
{
	const char *state;			 /* of the rows that wait here */
	bool (*open)(Passage *);	 /* whether a task may pass; the last gate makes it ready */
	void (*stopped)(int64 task); /* called once a task waits here; NULL: nothing to do */
	/* One bounded pass over those that may go on: how many did, and whether it was cut short. */
	int64 (*admit)(TimestampTz, bool *more);
} Gate;

static bool its_time_has_come(Passage *passage);
static bool its_parents_succeeded(Passage *passage);
static bool there_is_room(Passage *passage);
static int64 admit_due(TimestampTz now, bool *more);
static int64 admit_held(TimestampTz now, bool *more);

static const Gate gates[WAIT_GATES] = {
	[GATE_SCHEDULED] = { "scheduled", its_time_has_come, NULL, admit_due },
	[GATE_BLOCKED] = { "blocked", its_parents_succeeded, store_dependency_check,
					   store_dependency_admit },
	[GATE_HELD] = { "held", there_is_room, NULL, admit_held },
};

/* Whether the pass of the leader that goes on has made any task ready. */
static bool ready_made = false;

static bool
its_time_has_come(Passage *passage)
{
	return passage->due_at <= passage->now;
}

static bool
its_parents_succeeded(Passage *passage)
{
	return !passage->depends_on_others || !store_dependency_blocks(passage->slot.task_id);
}

/*
 * Make a task ready. A limited tenant's waits, since the leader counts what may go on;
 * so does one for whose shape the queue has no place.
 */
static bool
there_is_room(Passage *passage)
{
	bool limited;
	double weight;

	store_tenant_terms(passage->slot.tenant, &limited, &weight);
	if (!limited && store_queue_put(&passage->slot, weight))
		return true;
	store_queue_tag(&passage->slot, weight);
	return false;
}

/* The first gate from this one on that is shut for a task; WAIT_GATES if it is ready now. */
static WaitGate
walk(Passage *passage, WaitGate gate)
{
	while (gate < WAIT_GATES && gates[gate].open(passage))
		gate++;
	return gate;
}

/* Write the row of a task that stands nowhere. */
static void
insert_row(const TaskSlot *slot, WaitGate gate, TimestampTz due_at, TimestampTz now)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.waiting (" SLOT_COLUMNS
							  ", state, due_at, since) "
							  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	store_queue_slot_args(&args, slot);
	spi_arg_text(&args, gates[gate].state);
	spi_arg_time(&args, due_at);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "making a task wait");
	spi_end();
	if (gates[gate].stopped != NULL)
		gates[gate].stopped(slot->task_id);
}

/*
 * Put a task that stands nowhere where it belongs now: at the first gate that is shut for
 * it, or among the ready ones. It was submitted, ran, was given back or is tried again.
 */
void
store_waiting_place(const TaskSlot *slot, TimestampTz due_at, bool depends_on_others,
					TimestampTz now)
{
	Passage passage = { *slot, due_at, depends_on_others, now };
	WaitGate gate = walk(&passage, GATE_SCHEDULED);

	if (gate < WAIT_GATES)
		insert_row(&passage.slot, gate, gate == GATE_SCHEDULED ? due_at : 0, now);
}

/* Put a task that does not fit its tenant's limit among the held ones. */
void
store_waiting_hold(const TaskSlot *slot, TimestampTz now)
{
	insert_row(slot, GATE_HELD, 0, now);
}

/*
 * Take a task out of the waiting ones. False when it is not there; without wait also
 * when somebody else has it locked.
 */
bool
store_waiting_take(int64 task_id, bool wait, TaskSlot *slot)
{
	static SpiQuery waiting = {
		"DELETE FROM gpu_orch.waiting WHERE task_id = $1 RETURNING " SLOT_COLUMNS
	};
	static SpiQuery passing = {
		"DELETE FROM gpu_orch.waiting WHERE task_id = (SELECT task_id FROM gpu_orch.waiting"
		" WHERE task_id = $1 FOR UPDATE SKIP LOCKED) RETURNING " SLOT_COLUMNS
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	found = spi_run(wait ? &waiting : &passing, &args) == 1;
	if (found)
		store_queue_slot_read(slot, 0);
	spi_end();
	return found;
}

/*
 * Lock a task that waits at a gate, and read it. False when it does not, or when somebody
 * else has it locked.
 */
bool
store_waiting_lock(int64 task_id, WaitGate gate, TaskSlot *slot)
{
	static SpiQuery query = { "SELECT " SLOT_COLUMNS " FROM gpu_orch.waiting"
							  " WHERE task_id = $1 AND state = $2 FOR UPDATE SKIP LOCKED" };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg_text(&args, gates[gate].state);
	found = spi_run(&query, &args) == 1;
	if (found)
		store_queue_slot_read(slot, 0);
	spi_end();
	return found;
}

/* Delete the rows of tasks that have become ready. */
static void
delete_rows(const int64 *tasks, int n)
{
	static SpiQuery query = { "DELETE FROM gpu_orch.waiting WHERE task_id = ANY ($1)" };
	SpiArgs args = SPI_ARGS_INIT;

	if (n == 0)
		return;
	spi_begin();
	spi_arg_int8_array(&args, tasks, n, INT8OID);
	spi_run(&query, &args);
	spi_end();
	ready_made = true;
}

/*
 * Let a task through the gate at which it waits, on to the next that is shut or to the
 * ready ones. The caller has its row locked. Returns whether it is ready.
 */
bool
store_waiting_pass(const TaskSlot *slot, WaitGate gate, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.waiting SET state = $2, due_at = NULL, since = $3, tag = $4"
		" WHERE task_id = $1"
	};
	Passage passage = { *slot, 0, true, now };
	WaitGate next = walk(&passage, gate + 1);
	SpiArgs args = SPI_ARGS_INIT;

	if (next == WAIT_GATES)
	{
		delete_rows(&slot->task_id, 1);
		return true;
	}
	spi_begin();
	spi_arg_int8(&args, slot->task_id);
	spi_arg_text(&args, gates[next].state);
	spi_arg_time(&args, now);
	spi_arg_int8(&args, passage.slot.tag);
	spi_run_one(&query, &args, "letting a task through a gate");
	spi_end();
	if (gates[next].stopped != NULL)
		gates[next].stopped(slot->task_id);
	return false;
}

/* Read the tasks that the last statement returned with their SLOT_COLUMNS. Inside spi_begin(). */
static TaskSlot *
read_slots(int n)
{
	TaskSlot *slots = palloc((n + 1) * sizeof(TaskSlot));

	for (int i = 0; i < n; i++)
		store_queue_slot_read(&slots[i], i);
	return slots;
}

/* Scheduled tasks whose time has come go on. */
static int64
admit_due(TimestampTz now, bool *more)
{
	static SpiQuery query = { "SELECT " SLOT_COLUMNS " FROM gpu_orch.waiting"
							  " WHERE state = 'scheduled' AND due_at <= $1"
							  " ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED" };
	SpiArgs args = SPI_ARGS_INIT;
	TaskSlot *slots;
	int n;

	spi_begin();
	spi_arg_time(&args, now);
	spi_arg_int8(&args, ADMIT_BATCH);
	n = (int) spi_run(&query, &args);
	slots = read_slots(n);
	for (int i = 0; i < n; i++)
		(void) store_waiting_pass(&slots[i], GATE_SCHEDULED, now);
	spi_end();
	*more |= n == ADMIT_BATCH;
	return n;
}

/* Held tasks of one tenant and one shape. */
typedef struct HeldGroup
{
	int32 tenant;
	int64 shape;
	int64 room; /* how many may go on, as far as the tenant's limit goes */
} HeldGroup;

/*
 * The next groups of held tasks after one, up to ADMIT_BATCH: one step into the index for
 * each group, however many tasks it has. Of a limited tenant, at most as many ready tasks
 * stand there for each shape as the tenant has room. Inside spi_begin().
 */
static int
next_groups(const HeldGroup *after, HeldGroup **groups)
{
	static SpiQuery query = {
		"WITH RECURSIVE held AS ("
		" (SELECT tenant, shape FROM gpu_orch.waiting WHERE state = 'held'"
		"  AND (tenant, shape) > ($1, $2) ORDER BY tenant, shape LIMIT 1)"
		" UNION ALL"
		" SELECT n.tenant, n.shape FROM held h, LATERAL"
		" (SELECT w.tenant, w.shape FROM gpu_orch.waiting w WHERE w.state = 'held'"
		"  AND (w.tenant, w.shape) > (h.tenant, h.shape) ORDER BY w.tenant, w.shape LIMIT 1) n),"
		" next AS MATERIALIZED (SELECT tenant, shape FROM held LIMIT $3),"
		" room AS MATERIALIZED (SELECT t.id, greatest(0, t.max_running -"
		"   (SELECT count(*) FROM gpu_orch.lease l WHERE l.tenant = t.id AND l.tenant <> 0)) AS n"
		"  FROM gpu_orch.tenant t WHERE t.max_running IS NOT NULL"
		"  AND t.id IN (SELECT tenant FROM next)) "
		"SELECT g.tenant, g.shape, CASE WHEN r.id IS NULL THEN $3 ELSE r.n -"
		"  (SELECT count(*) FROM (SELECT 1 FROM gpu_orch.ready_queue q"
		"    WHERE q.shape = g.shape AND q.tenant = g.tenant LIMIT r.n) c) END "
		"FROM next g LEFT JOIN room r ON r.id = g.tenant ORDER BY g.tenant, g.shape"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_arg_int4(&args, after->tenant);
	spi_arg_int8(&args, after->shape);
	spi_arg_int8(&args, ADMIT_BATCH);
	n = (int) spi_read(&query, &args, 0);
	*groups = palloc((n + 1) * sizeof(HeldGroup));
	for (int i = 0; i < n; i++)
	{
		(*groups)[i].tenant = spi_int4(i, 1);
		(*groups)[i].shape = spi_int8(i, 2);
		(*groups)[i].room = spi_int8(i, 3);
	}
	return n;
}

/*
 * Make up to so many tasks of a group ready, as far as the queue has room for their
 * shape. A row is deleted only once its task stands among the ready ones. Inside
 * spi_begin().
 */
static int
admit_group(const HeldGroup *group, int most)
{
	static SpiQuery query = { "SELECT " SLOT_COLUMNS " FROM gpu_orch.waiting"
							  " WHERE state = 'held' AND tenant = $1 AND shape = $2"
							  " ORDER BY priority DESC, task_id LIMIT $3 FOR UPDATE SKIP LOCKED" };
	SpiArgs args = SPI_ARGS_INIT;
	TaskSlot *slots;
	int64 *ready;
	int n;
	int n_ready = 0;
	bool limited;
	double weight;

	spi_arg_int4(&args, group->tenant);
	spi_arg_int8(&args, group->shape);
	spi_arg_int8(&args, Min(group->room, most));
	n = (int) spi_run(&query, &args);
	slots = read_slots(n);
	ready = palloc((n + 1) * sizeof(int64));
	store_tenant_terms(group->tenant, &limited, &weight);
	while (n_ready < n && store_queue_put(&slots[n_ready], weight))
	{
		ready[n_ready] = slots[n_ready].task_id;
		n_ready++;
	}
	delete_rows(ready, n_ready);
	return n_ready;
}

/*
 * Held tasks for which there is room become ready. A pass goes on where the last one
 * ended, so that no group stands in the way of the others, and goes round once.
 */
static int64
admit_held(TimestampTz now, bool *more)
{
	const HeldGroup before_all = { -1, 0, 0 };
	static HeldGroup last = { -1, 0, 0 };
	bool from_start = last.tenant == before_all.tenant;
	int left = ADMIT_BATCH;

	spi_begin();
	for (;;)
	{
		HeldGroup *groups;
		int n = next_groups(&last, &groups);

		for (int i = 0; i < n && left > 0; i++)
		{
			last = groups[i];
			if (last.room > 0 && store_queue_has_room(last.shape, last.tenant))
				left -= admit_group(&last, left);
		}
		pfree(groups);
		if (left == 0 || n == ADMIT_BATCH)
			break;
		last = before_all;
		if (from_start)
			break;
		from_start = true;
	}
	spi_end();
	*more |= left == 0;
	return ADMIT_BATCH - left;
}

/*
 * Release whatever need not wait any longer: one bounded pass. Returns how many tasks went
 * on or were cancelled; *made_ready says whether work became claimable, *more whether the
 * caller should come back at once.
 */
int64
store_waiting_admit(TimestampTz now, bool *made_ready, bool *more)
{
	int64 moved;

	store_task_lock_places();
	ready_made = false;
	*more = false;
	moved = store_cancel_admit(now, more);
	for (WaitGate gate = 0; gate < WAIT_GATES; gate++)
		moved += gates[gate].admit(now, more);
	*made_ready = ready_made;
	*more |= moved > 0;
	return moved;
}

/* When the next scheduled task or running deadline is due; 0 for never. */
TimestampTz
store_waiting_next_due(void)
{
	static SpiQuery query = {
		"SELECT least((SELECT min(due_at) FROM gpu_orch.waiting WHERE state = 'scheduled'),"
		"             (SELECT min(deadline) FROM gpu_orch.lease WHERE deadline IS NOT NULL))"
	};
	TimestampTz due;

	spi_begin();
	spi_read(&query, NULL, 1);
	due = spi_time(0, 1);
	spi_end();
	return due;
}
