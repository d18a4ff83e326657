/*
 * store/dependency.c
 *	  Tasks that depend on others: all access to task_dependency and dependency_check.
 *
 * A blocked task is looked at when something may have changed for it, and not otherwise:
 * when it begins to wait, and when one of its parents has ended. Each of the two leaves a
 * row in dependency_check, which the leader takes once. Neither waits for the other, and
 * no end is missed:
 *
 * - whoever ends a parent writes the attempt first and looks for dependents afterwards, so
 *   it leaves a row unless the dependent is not committed yet;
 * - the row that the dependent itself left is taken after that commit. Should the parent's
 *   end not be committed by then, its attempt is there, and the row is kept.
 *
 * What is done by hand, such as deleting a parent, leaves no row: a slow round over all
 * blocked tasks finds it. That round is all there is in the schema before this one, which
 * has no dependency_check.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "base/inject.h"
#include "db/direct.h"
#include "db/ext_guard.h"
#include "storage/bufmgr.h"
#include "store/attempt.h"
#include "store/dependency.h"
#include "store/lease.h"
#include "store/task.h"
#include "store/waiting.h"
#include "utils/fmgroids.h"

/* Blocked tasks that one tick of the leader looks at without a cause. */
#define REPAIR_BATCH 100

/* clang-format off */
#define DEPENDENCY_COLUMNS(COLUMN, LATER) \
	COLUMN(DEPENDENCY_TASK_ID, task_id, INT8OID) \
	COLUMN(DEPENDENCY_PARENT, parent, INT8OID)
/* clang-format on */

enum
{
	DEPENDENCY_COLUMN_0,
	DEPENDENCY_COLUMNS(DIRECT_NUMBER, DIRECT_NUMBER)
};

static const DirectColumn dependency_columns[] = { DEPENDENCY_COLUMNS(DIRECT_ENTRY, DIRECT_LATER) };

static DirectTable by_child =
	DIRECT_TABLE("task_dependency", dependency_columns, .index_name = "task_dependency_pkey",
				 .index_key = { DEPENDENCY_TASK_ID, DEPENDENCY_PARENT });
static DirectTable by_parent =
	DIRECT_TABLE("task_dependency", dependency_columns, .index_name = "task_dependency_parent",
				 .index_key = { DEPENDENCY_PARENT });

/* Store what a task depends on. */
void
store_dependency_add(int64 task_id, const int64 *parents, int n_parents)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.task_dependency (task_id, parent)"
							  " SELECT $1, p FROM pg_catalog.unnest($2) p" };
	SpiArgs args = SPI_ARGS_INIT;

	if (n_parents == 0)
		return;
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_arg_int8_array(&args, parents, n_parents, INT8OID);
	spi_run(&query, &args);
	spi_end();
}

/* Whether a row of task_dependency names a task in the column that leads the table's index. */
static bool
depends(DirectTable *table, int64 task_id)
{
	Relation rel = direct_open(table);
	bool found = false;

	/* Most installations have no dependencies at all. */
	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		TupleTableSlot *row = direct_slot(table, rel);
		Snapshot snapshot = direct_snapshot();
		ScanKeyData key;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(task_id));
		found = direct_find(table, rel, snapshot, &key, 1, row, NULL);
		direct_slot_done(table, row);
		direct_release(snapshot);
	}
	direct_close(rel);
	return found;
}

/*
 * How the tasks stand that one depends on; *parent is the one that counts, 0 where all have
 * succeeded. With *ending, unless it is NULL, comes whether an open one is being ended by a
 * transaction that has not committed, or has been ended since.
 */
static ParentsVerdict
judge(int64 task_id, int64 *parent, bool *ending)
{
	static SpiQuery query = {
		"SELECT d.parent, a.final_state IS NOT NULL, coalesce("
		" (SELECT x.attempt FROM gpu_orch.lease x WHERE x.task_id = d.parent),"
		" (SELECT x.attempt FROM gpu_orch.ready_queue x WHERE x.task_id = d.parent),"
		" (SELECT x.attempt FROM gpu_orch.waiting x WHERE x.task_id = d.parent)) "
		"FROM gpu_orch.task_dependency d LEFT JOIN LATERAL"
		" (SELECT a.final_state FROM gpu_orch.attempt a WHERE a.task_id = d.parent"
		"  ORDER BY a.attempt DESC LIMIT 1) a ON true "
		"WHERE d.task_id = $1 AND a.final_state IS DISTINCT FROM 'succeeded' ORDER BY d.parent"
	};
	SpiArgs args = SPI_ARGS_INIT;
	ParentsVerdict verdict = PARENTS_SUCCEEDED;
	int n;

	*parent = 0;
	if (ending != NULL)
		*ending = false;
	store_task_lock_places();
	spi_begin();
	spi_arg_int8(&args, task_id);
	n = (int) spi_read(&query, &args, 0);
	for (int i = 0; i < n && verdict < PARENTS_FAILED; i++)
	{
		int32 attempt = spi_int4(i, 3);

		*parent = spi_int8(i, 1);
		if (attempt == 0)
			verdict = spi_bool(i, 2) ? PARENTS_FAILED : PARENTS_GONE;
		else
		{
			verdict = PARENTS_OPEN;
			if (ending != NULL && store_attempt_exists(*parent, attempt))
				*ending = true;
		}
	}
	spi_end();
	return verdict;
}

/* Keep the tasks that one depends on from being removed until the end of the transaction. */
void
store_dependency_keep_parents(int64 task_id)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.task WHERE id IN"
		" (SELECT parent FROM gpu_orch.task_dependency WHERE task_id = $1) FOR KEY SHARE"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_run(&query, &args);
	spi_end();
}

/* How the tasks stand that one depends on; *parent is the one that counts. */
ParentsVerdict
store_dependency_judge(int64 task_id, int64 *parent)
{
	return judge(task_id, parent, NULL);
}

/* Whether a task depends on one that has not succeeded. */
bool
store_dependency_blocks(int64 task_id)
{
	int64 parent;

	return depends(&by_child, task_id) && judge(task_id, &parent, NULL) != PARENTS_SUCCEEDED;
}

/* Have the leader look at a task: it is blocked, or it has ended and others depend on it. */
void
store_dependency_check(int64 task_id)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.dependency_check (task_id) VALUES ($1)" };
	SpiArgs args = SPI_ARGS_INIT;

	if (ext_is_older_schema())
		return;
	spi_begin();
	spi_arg_int8(&args, task_id);
	spi_run_one(&query, &args, "noting that a task is to be looked at");
	spi_end();
}

/*
 * A task has ended, and its last attempt is written: have those looked at that depend on
 * it. Returns whether any does.
 */
bool
store_dependency_ended(int64 task_id)
{
	if (!depends(&by_parent, task_id))
		return false;
	store_dependency_check(task_id);
	return true;
}

/*
 * Look at a blocked task: it goes on if all of its parents have succeeded, and is cancelled
 * if one did not. Adds to *moved. False when it must be looked at again: somebody has it
 * locked or, where it is looked at for itself, one of its parents is being ended.
 */
static bool
look_at(int64 task_id, bool for_itself, TimestampTz now, int64 *moved)
{
	TaskSlot slot;
	int64 parent;
	bool ending = false;

	switch (judge(task_id, &parent, for_itself ? &ending : NULL))
	{
		case PARENTS_OPEN:
			return !ending;
		case PARENTS_SUCCEEDED:
			if (!store_waiting_lock(task_id, GATE_BLOCKED, &slot))
				return false;
			INJECT("blocked.released");
			(void) store_waiting_pass(&slot, GATE_BLOCKED, now);
			break;
		case PARENTS_FAILED:
			if (!store_waiting_take(task_id, false, &slot))
				return false;
			store_lease_end_without(
				&slot,
				psprintf("task " INT64_FORMAT ", which it depends on, did not succeed", parent),
				now);
			break;
		case PARENTS_GONE:
			if (!store_waiting_take(task_id, false, &slot))
				return false;
			store_lease_end_without(&slot,
									psprintf("task " INT64_FORMAT
											 ", which it depends on, does not exist any more",
											 parent),
									now);
			break;
	}
	(*moved)++;
	return true;
}

/* One row of dependency_check. */
typedef struct Check
{
	int64 id;
	int64 task_id;
	int64 looked_up_to; /* of the tasks that depend on it */
} Check;

/* The next blocked tasks, by their ids, that depend on a task. Inside spi_begin(). */
static int
next_children(const Check *check, int most, int64 **children)
{
	static SpiQuery query = {
		"SELECT d.task_id FROM gpu_orch.task_dependency d, LATERAL"
		" (SELECT 1 FROM gpu_orch.waiting w WHERE w.task_id = d.task_id AND w.state = 'blocked'"
		"  LIMIT 1) w "
		"WHERE d.parent = $1 AND d.task_id > $2 ORDER BY d.task_id LIMIT $3"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int n;

	spi_arg_int8(&args, check->task_id);
	spi_arg_int8(&args, check->looked_up_to);
	spi_arg_int8(&args, most);
	n = (int) spi_read(&query, &args, 0);
	*children = palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		(*children)[i] = spi_int8(i, 1);
	return n;
}

/* Whether a task is blocked. Inside spi_begin(). */
static bool
is_blocked(int64 task_id)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.waiting WHERE task_id = $1 AND state = 'blocked'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_arg_int8(&args, task_id);
	return spi_read(&query, &args, 1) == 1;
}

/*
 * Do what one row asks for, looking at up to so many tasks; adds to *moved. Returns whether
 * the row is done with. Inside spi_begin().
 */
static bool
do_check(Check *check, int *left, TimestampTz now, int64 *moved)
{
	int64 *children;
	int most = *left;
	int n;

	if (is_blocked(check->task_id))
	{
		(*left)--;
		return look_at(check->task_id, true, now, moved);
	}
	/* It may be tried again: then its next end leaves another row. */
	if (store_task_stands(check->task_id))
		return true;
	n = next_children(check, most, &children);
	for (int i = 0; i < n; i++)
	{
		check->looked_up_to = children[i];
		if (!look_at(children[i], false, now, moved))
			store_dependency_check(children[i]);
	}
	pfree(children);
	*left -= n;
	return n < most;
}

/*
 * Look at the blocked tasks for which something may have changed: one bounded pass. Returns
 * how many went on or were cancelled; *more is set where the pass was cut short.
 */
int64
store_dependency_admit(TimestampTz now, bool *more)
{
	static SpiQuery window = { "SELECT id, task_id, looked_up_to FROM gpu_orch.dependency_check"
							   " WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED" };
	static SpiQuery remove = { "DELETE FROM gpu_orch.dependency_check WHERE id = ANY ($1)" };
	static SpiQuery keep = {
		"UPDATE gpu_orch.dependency_check SET looked_up_to = $2 WHERE id = $1"
	};
	/* Rows that have to be kept must not stand in the way of those behind them. */
	static int64 last_id = 0;
	SpiArgs args = SPI_ARGS_INIT;
	SpiArgs done_args = SPI_ARGS_INIT;
	Check *checks;
	int64 *done;
	int n;
	int n_done = 0;
	int left = ADMIT_BATCH;
	int64 moved = 0;

	if (ext_is_older_schema())
		return store_dependency_repair(now);
	spi_begin();
	spi_arg_int8(&args, last_id);
	spi_arg_int8(&args, ADMIT_BATCH);
	n = (int) spi_run(&window, &args);
	checks = palloc((n + 1) * sizeof(Check));
	done = palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		checks[i].id = spi_int8(i, 1);
		checks[i].task_id = spi_int8(i, 2);
		checks[i].looked_up_to = spi_int8(i, 3);
	}
	last_id = n < ADMIT_BATCH ? 0 : checks[n - 1].id;
	for (int i = 0; i < n && left > 0; i++)
	{
		int64 before = checks[i].looked_up_to;

		if (do_check(&checks[i], &left, now, &moved))
			done[n_done++] = checks[i].id;
		else if (checks[i].looked_up_to != before)
		{
			SpiArgs keep_args = SPI_ARGS_INIT;

			spi_arg_int8(&keep_args, checks[i].id);
			spi_arg_int8(&keep_args, checks[i].looked_up_to);
			spi_run(&keep, &keep_args);
		}
		if (left <= 0)
			last_id = checks[i].id - 1;
	}
	*more |= n == ADMIT_BATCH || left <= 0;
	if (n_done > 0)
	{
		spi_arg_int8_array(&done_args, done, n_done, INT8OID);
		spi_run(&remove, &done_args);
	}
	spi_end();
	return moved;
}

/*
 * Look at the next few blocked tasks though nothing is known to have changed for them, and
 * go round: a parent may have been deleted by hand. Returns how many went on or were
 * cancelled.
 */
int64
store_dependency_repair(TimestampTz now)
{
	static SpiQuery query = { "SELECT task_id FROM gpu_orch.waiting WHERE state = 'blocked'"
							  " AND task_id > $1 ORDER BY task_id LIMIT $2" };
	static int64 last_task = 0;
	SpiArgs args = SPI_ARGS_INIT;
	int64 tasks[REPAIR_BATCH];
	int64 moved = 0;
	int n;

	store_task_lock_places();
	spi_begin();
	spi_arg_int8(&args, last_task);
	spi_arg_int8(&args, REPAIR_BATCH);
	n = (int) spi_read(&query, &args, 0);
	for (int i = 0; i < n; i++)
		tasks[i] = spi_int8(i, 1);
	last_task = n < REPAIR_BATCH ? 0 : tasks[n - 1];
	for (int i = 0; i < n; i++)
		(void) look_at(tasks[i], false, now, &moved);
	spi_end();
	return moved;
}
