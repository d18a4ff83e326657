/*-------------------------------------------------------------------------
 *
 * worker_state.c
 *		What the threads of gpu-orch-worker share: the session, the slots and
 *		the wish to drain, stop or exit.
 *
 * Unless a function says otherwise it takes worker.lock itself; those marked
 * "locked" expect the caller to hold it.  Must not call the database and must
 * not touch processes.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "worker.h"

Worker worker;

/*
 * Prepare the shared state; the options are filled in already.  Runs before
 * any other descriptor is opened, so that the eventfds (and not the ends of a
 * handler's pipes) occupy descriptor 3, which a handler's progress pipe needs.
 */
void
state_init(void)
{
	pthread_mutex_init(&worker.lock, NULL);
	worker.exit_code = -1;
	worker.heard = clock_now();
	worker.main_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker.queue_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker.heartbeat_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

/*
 * Free what the state owns, once the other threads are gone.
 */
void
state_free(void)
{
	int i;

	for (i = 0; worker.slots != NULL && i < worker.opt.concurrency; i++)
		state_free_slot(&worker.slots[i]);
	free(worker.slots);
	free(worker.session.worker_id);
	free(worker.session.token);
	free(worker.opt.dsn);
	free(worker.opt.password);
	free(worker.opt.registration_token);
	free(worker.opt.capabilities);
	free(worker.broken);
}

/*
 * Wake every thread.  Needs no lock.
 */
void
state_wake_all(void)
{
	wake(worker.main_wake);
	wake(worker.queue_wake);
	wake(worker.heartbeat_wake);
}

/*
 * Copy the session's identity for one call; false while there is no session.
 * The caller frees the copy with identity_free().
 */
bool
state_identity(Identity *identity)
{
	bool live;

	memset(identity, 0, sizeof(*identity));
	pthread_mutex_lock(&worker.lock);
	live = worker.session.live;
	if (live)
	{
		identity->generation = worker.session.generation;
		identity->worker_id = xstrdup(worker.session.worker_id);
		identity->token = xstrdup(worker.session.token);
	}
	pthread_mutex_unlock(&worker.lock);
	return live;
}

/*
 * Free the strings of an identity and leave it empty.
 */
void
identity_free(Identity *identity)
{
	free(identity->worker_id);
	free(identity->token);
	memset(identity, 0, sizeof(*identity));
}

/*
 * A registration was accepted: the session is live, with the heartbeat
 * interval in seconds.
 */
void
state_session_start(const char *worker_id, const char *token, double interval)
{
	pthread_mutex_lock(&worker.lock);
	free(worker.session.worker_id);
	free(worker.session.token);
	worker.session.worker_id = xstrdup(worker_id);
	worker.session.token = xstrdup(token);
	worker.session.heartbeat_interval = interval;
	worker.session.since = clock_now();
	worker.session.generation++;
	worker.session.live = true;
	worker.drain_told = false;
	pthread_mutex_unlock(&worker.lock);
	state_wake_all();
}

/*
 * The server no longer accepts this session's token: no lease is ours any
 * more.  Told about a session that was replaced meanwhile, does nothing.
 */
void
state_session_lost(uint64_t generation)
{
	bool ours;
	int i;

	pthread_mutex_lock(&worker.lock);
	ours = worker.session.live && worker.session.generation == generation;
	if (ours)
	{
		worker.session.live = false;
		for (i = 0; i < worker.opt.concurrency; i++)
			if (worker.slots[i].state != SLOT_FREE)
				worker.slots[i].fenced = true;
	}
	pthread_mutex_unlock(&worker.lock);
	if (ours && !worker.leaving)
		log_line("session of worker \"%s\" was revoked", worker.opt.worker_id);
	state_wake_all();
}

/*
 * The database answered a heartbeat or a registration, though it may have
 * refused it.
 */
void
state_heard(void)
{
	pthread_mutex_lock(&worker.lock);
	worker.heard = clock_now();
	pthread_mutex_unlock(&worker.lock);
}

/*
 * End the program with this code as soon as the main thread sees it.  The
 * first code stays.
 */
void
state_exit(int code)
{
	pthread_mutex_lock(&worker.lock);
	if (worker.exit_code < 0)
		worker.exit_code = code;
	pthread_mutex_unlock(&worker.lock);
	state_wake_all();
}

/*
 * Number of free slots (locked).
 */
int
state_free_slots(void)
{
	int count = 0;
	int i;

	for (i = 0; i < worker.opt.concurrency; i++)
		if (worker.slots[i].state == SLOT_FREE)
			count++;
	return count;
}

/*
 * Shall nothing new be claimed (locked)?
 */
bool
state_draining(void)
{
	return worker.drain_asked || worker.drain_told || worker.stop_asked || worker.broken != NULL ||
		worker.leaving || (worker.opt.once && worker.once_claimed);
}

/*
 * Is the work done, with nothing held and nothing to come (locked)?
 */
bool
state_finished(void)
{
	return state_draining() && !worker.claim_open && state_free_slots() == worker.opt.concurrency;
}

/*
 * The leases held, as text of a uuid[]; malloc'd (locked).  NULL while a call
 * that claims has no answer yet: what it may have claimed cannot be named, and
 * an array would give it back.
 */
char *
state_holding(void)
{
	char *text;
	int i;

	if (worker.claim_open)
		return NULL;

	/* a lease is 36 characters, and a comma */
	text = xrealloc(NULL, worker.opt.concurrency * 37 + 3);
	strcpy(text, "{");
	for (i = 0; i < worker.opt.concurrency; i++)
	{
		Slot *slot = &worker.slots[i];

		if (slot->state == SLOT_FREE || slot->fenced)
			continue;
		if (text[1] != '\0')
			strcat(text, ",");
		strcat(text, slot->task.lease);
	}
	strcat(text, "}");
	return text;
}

/*
 * Put a claimed task into a free slot, of which there must be one; it takes
 * over the task's strings (locked).
 */
void
state_fill_slot(Task *task)
{
	int i = 0;

	while (worker.slots[i].state != SLOT_FREE)
		i++;
	worker.slots[i].task = *task;
	worker.slots[i].state = SLOT_CLAIMED;
	worker.once_claimed = true;
}

/*
 * Empty a slot and free what it holds (locked).
 */
void
state_free_slot(Slot *slot)
{
	int number = slot->number;

	free(slot->task.task_id);
	free(slot->task.lease);
	free(slot->task.attempt);
	free(slot->task.kind);
	free(slot->task.traceparent);
	free(slot->task.json);
	free(slot->outcome.result);
	free(slot->outcome.error);
	memset(slot, 0, sizeof(*slot));
	slot->number = number;
	slot->fraction = -1;
}
