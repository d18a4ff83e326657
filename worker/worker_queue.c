/*-------------------------------------------------------------------------
 *
 * worker_queue.c
 *		The queue thread of gpu-orch-worker: claims tasks into free slots and
 *		answers for those that ended.
 *
 * It works level-triggered: each pass looks at all slots and does what is due;
 * a call without an answer leaves the slot as it is, so the next pass, after a
 * backoff, makes the same call again with the same arguments.  Must not start
 * or kill a process: a fenced lease is noted in its slot.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

#define CLAIMED_COLUMNS \
	"SELECT c.task_id, c.lease, c.attempt, c.kind, c.traceparent, pg_catalog.row_to_json(c)," \
	" extract(epoch FROM c.deadline OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()) FROM "

static DbConn conn = { .purpose = "queue" };
static DbConn listen_conn = { .purpose = "listen" };
static double listen_retry_at = 0;
static double next_claim = 0;

/*
 * A malloc'd copy of one field, NULL for SQL's null.
 */
static char *
queue_field(PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : xstrdup(PQgetvalue(result, row, column));
}

/*
 * Put the claimed tasks of an answer into free slots (locked).  asked_at is
 * when the call was made: a deadline counted from there is never late.  Leases
 * of a session that was revoked meanwhile are not ours.
 */
static void
queue_take(PGresult *result, double asked_at, const Identity *identity)
{
	int row;

	if (!worker.session.live || worker.session.generation != identity->generation)
		return;
	for (row = 0; row < PQntuples(result) && state_free_slots() > 0; row++)
	{
		Task task;

		task.task_id = queue_field(result, row, 0);
		task.lease = queue_field(result, row, 1);
		task.attempt = queue_field(result, row, 2);
		task.kind = queue_field(result, row, 3);
		task.traceparent = queue_field(result, row, 4);
		task.json = queue_field(result, row, 5);
		task.deadline = 0;
		if (!PQgetisnull(result, row, 6))
			task.deadline = asked_at + strtod(PQgetvalue(result, row, 6), NULL);
		state_fill_slot(&task);
	}
}

/*
 * May a claim be made now (locked)?  Not while a heartbeat is unanswered: it
 * says which leases are held, and could give back one that is claimed
 * meanwhile.  Nor before the time that a doubtful handler is given, or beside a
 * task that shall show whether it works.
 */
static bool
queue_may_claim(void)
{
	return worker.session.live && !state_draining() && !worker.heartbeat_open &&
		!worker.claim_open && clock_now() >= worker.claim_after &&
		(!worker.doubted || state_free_slots() == worker.opt.concurrency);
}

/*
 * Claim for all free slots, if that is due and allowed.
 */
static DbStatus
queue_claim(void)
{
	Identity identity;
	char max_tasks[16];
	const char *params[3];
	double asked_at = clock_now();
	int free_slots = 0;
	PGresult *result = NULL;
	DbStatus status;

	pthread_mutex_lock(&worker.lock);
	if (asked_at >= next_claim && queue_may_claim())
		free_slots = worker.opt.once || worker.doubted ? 1 : state_free_slots();
	worker.claim_open |= free_slots > 0;
	pthread_mutex_unlock(&worker.lock);
	if (free_slots == 0)
		return DB_OK;

	if (!state_identity(&identity))
		status = DB_NO_ANSWER;
	else
	{
		snprintf(max_tasks, sizeof(max_tasks), "%d", free_slots);
		params[0] = identity.worker_id;
		params[1] = identity.token;
		params[2] = max_tasks;
		status = db_call(&conn,
						 CLAIMED_COLUMNS "gpu_orch.claim_tasks(worker_id => $1::text,"
										 " token => $2::text, max_tasks => $3::int) c",
						 3, params, &result);
	}

	pthread_mutex_lock(&worker.lock);
	worker.claim_open = false;
	if (status == DB_OK)
		queue_take(result, asked_at, &identity);
	pthread_mutex_unlock(&worker.lock);

	next_claim = clock_now() + jitter(worker.opt.poll);
	if (status == DB_REFUSED)
		state_session_lost(identity.generation);
	PQclear(result);
	identity_free(&identity);
	wake(worker.main_wake);
	return status;
}

/*
 * Make the call that reports a slot's outcome.  max_tasks: how many tasks to
 * claim in the same commit, 0 for none.
 */
static DbStatus
queue_report_call(Slot *slot, const Identity *identity, int max_tasks, PGresult **result)
{
	const char *params[7] = { identity->worker_id, identity->token, slot->task.task_id,
							  slot->task.lease };
	const char *sql = NULL;
	char number[16];
	int nparams = 4;

	switch (slot->outcome.kind)
	{
		case OUTCOME_RELEASED:
			sql = "SELECT gpu_orch.release_task(worker_id => $1::text, token => $2::text,"
				  " task_id => $3::bigint, lease => $4::uuid)";
			break;
		case OUTCOME_FAILED:
			sql = "SELECT gpu_orch.fail_task(worker_id => $1::text, token => $2::text,"
				  " task_id => $3::bigint, lease => $4::uuid, error => $5::text,"
				  " failure => $6::text, retry => $7::boolean)";
			params[nparams++] = slot->outcome.error;
			params[nparams++] = slot->outcome.failure;
			params[nparams++] = slot->outcome.retry ? "true" : "false";
			break;
		case OUTCOME_SUCCEEDED:
			params[nparams++] = slot->outcome.result;
			if (max_tasks == 0)
			{
				sql = "SELECT gpu_orch.complete_task(worker_id => $1::text, token => $2::text,"
					  " task_id => $3::bigint, lease => $4::uuid, result => $5::jsonb)";
				break;
			}
			sql = CLAIMED_COLUMNS "gpu_orch.complete_and_claim(worker_id => $1::text,"
								  " token => $2::text, task_id => $3::bigint, lease => $4::uuid,"
								  " result => $5::jsonb, max_tasks => $6::int) c";
			snprintf(number, sizeof(number), "%d", max_tasks);
			params[nparams++] = number;
			break;
	}
	return db_call(&conn, sql, nparams, params, result);
}

/*
 * The server will never accept this answer, and says why: turn a completion into
 * a rejection, since the same work would come to the same result, and forget any
 * other; its lease is then given back by the next heartbeat, which no longer
 * names it (locked).
 */
static void
queue_answer_invalid(Slot *slot, const char *why)
{
	if (slot->outcome.kind != OUTCOME_SUCCEEDED)
	{
		state_free_slot(slot);
		return;
	}
	log_line("task %s attempt %s: its result was refused", slot->task.task_id, slot->task.attempt);
	free(slot->outcome.result);
	slot->outcome = (Outcome){ .kind = OUTCOME_FAILED,
							   .error = format_text("the server refused the result: %s", why),
							   .failure = "rejected" };
}

/*
 * Say in the log that a slot's lease was lost.
 */
static void
queue_log_fenced(const Slot *slot)
{
	log_line("task %s: lease %s is no longer ours", slot->task.task_id, slot->task.lease);
}

/*
 * Report the outcome of a slot that ended, claiming the next tasks in the same
 * commit where that is possible.  The slot is free afterwards unless the call
 * must be repeated.
 */
static DbStatus
queue_report(Slot *slot)
{
	Identity identity;
	double asked_at = clock_now();
	int max_tasks;
	bool known;
	PGresult *result = NULL;
	DbStatus status;

	pthread_mutex_lock(&worker.lock);
	if (!slot->fenced && slot->claim_with == 0 && slot->outcome.kind == OUTCOME_SUCCEEDED &&
		queue_may_claim())
	{
		slot->claim_with = state_free_slots() + 1;
		worker.claim_open = true;
	}
	max_tasks = slot->claim_with;
	known = slot->fenced;
	pthread_mutex_unlock(&worker.lock);

	if (!state_identity(&identity) && !known)
		return DB_NO_ANSWER;
	status = known ? DB_FENCED : queue_report_call(slot, &identity, max_tasks, &result);
	if (status == DB_OK && max_tasks == 0 && strcmp(PQgetvalue(result, 0, 0), "t") != 0)
		status = DB_FENCED;
	if (status == DB_FENCED && !known)
		queue_log_fenced(slot);

	pthread_mutex_lock(&worker.lock);
	if (max_tasks > 0 && status != DB_NO_ANSWER)
	{
		worker.claim_open = false;
		slot->claim_with = 0;
	}
	if (status == DB_OK || status == DB_FENCED)
		state_free_slot(slot);
	else if (status == DB_INVALID)
		queue_answer_invalid(slot, conn.error);
	if (status == DB_OK && max_tasks > 0)
	{
		queue_take(result, asked_at, &identity);
		next_claim = asked_at + jitter(worker.opt.poll);
	}
	else if (status == DB_OK)
		next_claim = 0;
	pthread_mutex_unlock(&worker.lock);

	if (status == DB_REFUSED)
		state_session_lost(identity.generation);
	PQclear(result);
	identity_free(&identity);
	wake(worker.main_wake);
	return status;
}

/*
 * Send the progress of a running slot.  A lost call is not repeated on its own
 * account, since newer progress replaces it; a fenced one dooms the handler.
 */
static DbStatus
queue_progress(Slot *slot)
{
	Identity identity;
	char fraction[32];
	char stage[STAGE_BYTES + 1];
	const char *params[6];
	PGresult *result = NULL;
	DbStatus status;

	if (!state_identity(&identity))
		return DB_NO_ANSWER;

	pthread_mutex_lock(&worker.lock);
	snprintf(fraction, sizeof(fraction), "%g", slot->fraction);
	strcpy(stage, slot->stage);
	params[0] = identity.worker_id;
	params[1] = identity.token;
	params[2] = slot->task.task_id;
	params[3] = slot->task.lease;
	params[4] = slot->fraction < 0 ? NULL : fraction;
	params[5] = stage[0] == '\0' ? NULL : stage;
	slot->progress_due = false;
	slot->progress_sent = clock_now();
	pthread_mutex_unlock(&worker.lock);

	status = db_call(&conn,
					 "SELECT gpu_orch.progress_task(worker_id => $1::text, token => $2::text,"
					 " task_id => $3::bigint, lease => $4::uuid, fraction => $5::float8,"
					 " stage => $6::text)",
					 6, params, &result);
	if (status == DB_OK && strcmp(PQgetvalue(result, 0, 0), "t") != 0)
		status = DB_FENCED;
	if (status == DB_FENCED)
		queue_log_fenced(slot);

	/* only this thread empties slots: it is still the same task */
	pthread_mutex_lock(&worker.lock);
	if (status == DB_FENCED)
		slot->fenced = true;
	else if (status == DB_NO_ANSWER)
		slot->progress_due = true;
	pthread_mutex_unlock(&worker.lock);

	if (status == DB_REFUSED)
		state_session_lost(identity.generation);
	else if (status == DB_FENCED)
		wake(worker.main_wake);
	PQclear(result);
	identity_free(&identity);
	return status;
}

/*
 * Keep a connection that listens for work, if one is wanted and to be had; see
 * whether it was notified.  Polling goes on without it.
 */
static void
queue_listen(void)
{
	PGnotify *notify;
	PGresult *result;

	if (!worker.opt.listen)
		return;
	if (listen_conn.pg == NULL)
	{
		if (clock_now() < listen_retry_at)
			return;
		listen_retry_at = clock_now() + LISTEN_RETRY;
		if (db_call(&listen_conn, "LISTEN gpu_orch_tasks", 0, NULL, &result) != DB_OK)
		{
			db_close(&listen_conn);
			return;
		}
		PQclear(result);
	}

	if (!PQconsumeInput(listen_conn.pg))
	{
		db_close(&listen_conn);
		return;
	}
	while ((notify = PQnotifies(listen_conn.pg)) != NULL)
	{
		next_claim = 0;
		PQfreemem(notify);
	}
}

/*
 * Take leave of the server, when there is nothing more to do: it need not wait
 * for this worker's silence to last.  Whatever is answered, that was it.
 */
static DbStatus
queue_goodbye(void)
{
	Identity identity;
	const char *params[3];
	PGresult *result;
	DbStatus status;
	bool due;

	pthread_mutex_lock(&worker.lock);
	due = worker.leaving && !worker.left;
	pthread_mutex_unlock(&worker.lock);
	if (!due || !state_identity(&identity))
		return DB_OK;

	params[0] = identity.worker_id;
	params[1] = identity.token;
	params[2] = worker.broken;
	status = db_call(&conn,
					 "SELECT gpu_orch.goodbye(worker_id => $1::text, token => $2::text,"
					 " broken => $3::text)",
					 3, params, &result);
	PQclear(result);
	identity_free(&identity);
	if (status != DB_NO_ANSWER)
	{
		pthread_mutex_lock(&worker.lock);
		worker.left = true;
		pthread_mutex_unlock(&worker.lock);
		wake(worker.main_wake);
	}
	return status;
}

/*
 * One pass over all that is due; false when a call got no answer and the thread
 * should back off.
 */
static bool
queue_pass(void)
{
	int i;

	for (i = 0; i < worker.opt.concurrency; i++)
	{
		Slot *slot = &worker.slots[i];
		DbStatus status = DB_OK;
		bool ended;
		bool progress;

		pthread_mutex_lock(&worker.lock);
		ended = slot->state == SLOT_ENDED;
		progress = slot->state == SLOT_RUNNING && !slot->fenced && slot->progress_due &&
			clock_now() >= slot->progress_sent + PROGRESS_PERIOD;
		pthread_mutex_unlock(&worker.lock);

		if (ended)
			status = queue_report(slot);
		else if (progress)
			status = queue_progress(slot);
		if (status == DB_NO_ANSWER)
			return false;
	}

	queue_listen();
	return queue_claim() != DB_NO_ANSWER && queue_goodbye() != DB_NO_ANSWER;
}

/*
 * Seconds until something is due by the clock.
 */
static double
queue_next_due(void)
{
	double due = clock_now() + worker.opt.poll;
	int i;

	pthread_mutex_lock(&worker.lock);
	if (queue_may_claim() && state_free_slots() > 0 && next_claim < due)
		due = next_claim;
	if (worker.claim_after > clock_now() && worker.claim_after < due)
		due = worker.claim_after;
	for (i = 0; i < worker.opt.concurrency; i++)
	{
		Slot *slot = &worker.slots[i];

		if (slot->state == SLOT_ENDED)
			due = 0;
		else if (slot->state == SLOT_RUNNING && !slot->fenced && slot->progress_due &&
				 slot->progress_sent + PROGRESS_PERIOD < due)
			due = slot->progress_sent + PROGRESS_PERIOD;
	}
	pthread_mutex_unlock(&worker.lock);
	return due - clock_now();
}

/*
 * The thread: passes over the slots while a session is live, and waits.
 */
void *
queue_thread(void *unused)
{
	Backoff backoff = { 0 };
	bool quit = false;

	(void) unused;
	while (!quit)
	{
		double until;

		if (queue_pass())
		{
			backoff.last = 0;
			wait_for(worker.queue_wake, listen_conn.pg != NULL ? PQsocket(listen_conn.pg) : -1,
					 queue_next_due());
			until = 0;
		}
		else
			until = clock_now() + backoff_next(&backoff, BACKOFF_CAP);

		do
		{
			if (until > 0)
				wait_for(worker.queue_wake, -1, until - clock_now());
			pthread_mutex_lock(&worker.lock);
			quit = worker.quit;
			pthread_mutex_unlock(&worker.lock);
		} while (!quit && clock_now() < until);
	}
	db_close(&conn);
	db_close(&listen_conn);
	return NULL;
}
