/*-------------------------------------------------------------------------
 *
 * worker_heartbeat.c
 *		The heartbeat thread of gpu-orch-worker: registration, heartbeats, and
 *		what the server's answers ask for.
 *
 * It runs whatever the handlers do, on a connection of its own.  Must not start
 * or kill a process and must not answer for a task: it notes in the slots what
 * is wanted, and the other threads do it.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

static DbConn conn = { .purpose = "heartbeat" };

/*
 * Register once.  DB_OK: the session is live.
 */
static DbStatus
heartbeat_register(void)
{
	char slots[16];
	const char *params[] = { worker.opt.worker_id,	  worker.opt.registration_token,
							 worker.opt.capabilities, worker.opt.pool,
							 worker.opt.pod_id,		  slots };
	PGresult *result;
	DbStatus status;

	snprintf(slots, sizeof(slots), "%d", worker.opt.concurrency);
	status = db_call(&conn,
					 "SELECT r.worker_id, r.token, extract(epoch FROM r.heartbeat_interval), r.pool"
					 " FROM gpu_orch.register_worker(worker_id => $1::text, token => $2::text,"
					 " capabilities => $3::jsonb, pool => $4::text, pod_id => $5::text,"
					 " slots => $6::int) r",
					 6, params, &result);
	if (status != DB_OK)
		return status;
	if (PQntuples(result) != 1)
		status = DB_NO_ANSWER;
	else
	{
		log_line("registered as worker \"%s\", pool: %s", PQgetvalue(result, 0, 0),
				 PQgetisnull(result, 0, 3) ? "none" : PQgetvalue(result, 0, 3));
		state_session_start(PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1),
							strtod(PQgetvalue(result, 0, 2), NULL));
	}
	PQclear(result);
	return status;
}

/*
 * Note the cancelled tasks (a JSON array of task ids, or NULL) in their slots.
 * One whose handler has ended already is left alone: its completion wins.
 */
static void
heartbeat_cancel(const char *cancelled)
{
	json_t *ids = json_loads(cancelled, 0, NULL);
	json_t *id;
	size_t n;
	int i;

	pthread_mutex_lock(&worker.lock);
	json_array_foreach(ids, n, id)
	{
		for (i = 0; i < worker.opt.concurrency; i++)
		{
			Slot *slot = &worker.slots[i];

			if ((slot->state == SLOT_CLAIMED || slot->state == SLOT_RUNNING) &&
				slot->stop == STOP_NONE &&
				strtoll(slot->task.task_id, NULL, 10) == json_integer_value(id))
				slot->stop = STOP_CANCELLED;
		}
	}
	pthread_mutex_unlock(&worker.lock);
	json_decref(ids);
	wake(worker.main_wake);
}

/*
 * Obey a directive.  A drain is taken back by the next "continue".
 */
static void
heartbeat_obey(const char *directive)
{
	bool stop = strcmp(directive, "stop") == 0;
	bool drain = strcmp(directive, "drain") == 0;
	bool news;

	pthread_mutex_lock(&worker.lock);
	news = stop ? !worker.stop_asked : worker.drain_told != drain;
	worker.stop_asked |= stop;
	worker.drain_told = drain;
	pthread_mutex_unlock(&worker.lock);
	if (news)
		log_line("told to %s", directive);
	state_wake_all();
}

/*
 * Send one heartbeat and do what its answer says.  after_gap: heartbeats went
 * unanswered before this one, so the server may have given our leases to
 * others; a progress call for each will tell.
 */
static DbStatus
heartbeat_send(bool after_gap)
{
	Identity identity;
	char *holding;
	char *stats;
	const char *params[4];
	int running;
	int i;
	PGresult *result;
	DbStatus status;

	if (!state_identity(&identity))
		return DB_OK;

	pthread_mutex_lock(&worker.lock);
	running = worker.opt.concurrency - state_free_slots();
	pthread_mutex_unlock(&worker.lock);
	stats = gpu_stats(running);

	pthread_mutex_lock(&worker.lock);
	holding = state_holding();
	worker.heartbeat_open = true;
	pthread_mutex_unlock(&worker.lock);

	params[0] = identity.worker_id;
	params[1] = identity.token;
	params[2] = stats;
	params[3] = holding;
	status = db_call(&conn,
					 "SELECT h.directive, array_to_json(h.cancelled)"
					 " FROM gpu_orch.heartbeat(worker_id => $1::text, token => $2::text,"
					 " stats => $3::jsonb, holding => $4::uuid[]) h",
					 4, params, &result);

	pthread_mutex_lock(&worker.lock);
	worker.heartbeat_open = false;
	for (i = 0; status == DB_OK && after_gap && i < worker.opt.concurrency; i++)
		if (worker.slots[i].state == SLOT_RUNNING)
			worker.slots[i].progress_due = true;
	pthread_mutex_unlock(&worker.lock);
	wake(worker.queue_wake);

	if (status == DB_OK && PQntuples(result) == 1)
	{
		heartbeat_cancel(PQgetvalue(result, 0, 1));
		heartbeat_obey(PQgetvalue(result, 0, 0));
	}
	else if (status == DB_REFUSED)
		state_session_lost(identity.generation);

	PQclear(result);
	free(stats);
	free(holding);
	identity_free(&identity);
	return status;
}

/*
 * One turn of the thread: a heartbeat, or a registration when there is no
 * session, and nothing when all is done.  Returns the seconds to wait before the
 * next turn.  A registration that is refused for good ends the program; one that
 * is refused since another process works under this name is tried again.
 */
static double
heartbeat_turn(bool live, double interval, Backoff *backoff)
{
	DbStatus status;
	bool leaving;

	pthread_mutex_lock(&worker.lock);
	leaving = worker.leaving;
	pthread_mutex_unlock(&worker.lock);
	if (leaving)
		return 3600;
	if (live)
	{
		status = heartbeat_send(backoff->last != 0);
		if (status != DB_NO_ANSWER)
			state_heard();
		if (status == DB_NO_ANSWER || status == DB_INVALID)
			return backoff_next(backoff, interval < BACKOFF_CAP ? interval : BACKOFF_CAP);
		backoff->last = 0;
		return jitter(interval);
	}

	status = heartbeat_register();
	if (status != DB_NO_ANSWER)
		state_heard();
	if (status == DB_OK)
	{
		backoff->last = 0;
		return 0;
	}
	if (status == DB_REFUSED || status == DB_INVALID)
	{
		log_line("registration of worker \"%s\" was refused", worker.opt.worker_id);
		state_exit(status == DB_REFUSED ? EXIT_REFUSED : EXIT_BAD_CONFIG);
	}
	return backoff_next(backoff, BACKOFF_CAP);
}

/*
 * The thread: registers, beats, registers again when the session was revoked.
 * After a session that died young it waits first, with backoff: two processes
 * under one worker id must not revoke each other at full speed.
 */
void *
heartbeat_thread(void *unused)
{
	Backoff backoff = { 0 };
	Backoff sessions = { 0 };
	bool was_live = false;
	bool quit = false;

	(void) unused;
	while (!quit)
	{
		bool live;
		double age;
		double interval;
		double until;

		pthread_mutex_lock(&worker.lock);
		live = worker.session.live;
		age = clock_now() - worker.session.since;
		interval = worker.session.heartbeat_interval;
		pthread_mutex_unlock(&worker.lock);

		if (was_live && !live)
		{
			if (age > SHORT_SESSION)
				sessions.last = 0;
			until = clock_now() + backoff_next(&sessions, SHORT_SESSION);
		}
		else
			until = clock_now() + heartbeat_turn(live, interval, &backoff);
		was_live = live;

		do
		{
			wait_for(worker.heartbeat_wake, -1, until - clock_now());
			pthread_mutex_lock(&worker.lock);
			quit = worker.quit;
			if (was_live && !worker.session.live)
				until = 0;
			pthread_mutex_unlock(&worker.lock);
		} while (!quit && clock_now() < until);
	}
	db_close(&conn);
	return NULL;
}
