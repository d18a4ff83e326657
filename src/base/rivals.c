/*
 * base/rivals.c
 *	  Who registers over living sessions: the memory by which a war of two processes
 *	  under one worker id is told from a container that started again.
 *
 * A process that starts again soon ends the session of the one before it, once. Two
 * processes end each other's again and again, and the agent waits up to a minute in between. So a
 * living session may be taken over a few times, each of them soon after the last; after that it stays
 * with whoever has it, for as long as somebody goes on asking. What is noted here outlives the transaction
 * of a registration that is refused; a restart of the server forgets it, which costs a
 * few more take-overs. There are few places, and the one that was used last the longest
 * ago is given up. Must not decide whether a session lives.
 */
#include "postgres.h"

#include "base/guc.h"
#include "base/rivals.h"
#include "base/shmem.h"
#include "miscadmin.h"

/* Take-overs of one worker that are let through, each within a window of the last. */
#define MOST_TAKEN 3

/*
 * Whether a time was within the last window; a clock that was set back forgets it. A process may
 * learn as late as by its next heartbeat that its session was ended, and waits for a minute then.
 */
static bool
is_recent(TimestampTz time, TimestampTz now)
{
	return time <= now && now - time < 2 * (USECS_PER_MINUTE + guc_us(guc_heartbeat_interval));
}

/* The place of a worker, or, not *found, the one to give up for it. Caller holds the lock. */
static Rival *
find_place(int64 worker, TimestampTz created_at, bool *found)
{
	Rival *rivals = shmem_state()->rivals;
	Rival *oldest = &rivals[0];

	for (int i = 0; i < RIVALS; i++)
	{
		Rival *rival = &rivals[i];

		*found = rival->database == MyDatabaseId && rival->worker == worker &&
			rival->created_at == created_at;
		if (*found)
			return rival;
		if (Max(rival->taken_at, rival->refused_at) < Max(oldest->taken_at, oldest->refused_at))
			oldest = rival;
	}
	return oldest;
}

/*
 * A registration is about to end the living session of a worker. Says whether it may, and
 * counts it.
 */
RivalVerdict
rivals_take_over(int64 worker, TimestampTz created_at, const char *name, TimestampTz now)
{
	RivalVerdict verdict;
	Rival *rival;
	bool found;

	LWLockAcquire(shmem_state()->lock, LW_EXCLUSIVE);
	rival = find_place(worker, created_at, &found);
	if (!found || !(is_recent(rival->taken_at, now) || is_recent(rival->refused_at, now)))
	{
		memset(rival, 0, sizeof(*rival));
		rival->database = MyDatabaseId;
		rival->worker = worker;
		rival->created_at = created_at;
		strlcpy(rival->name, name, RIVAL_NAME);
	}
	if (rival->taken >= MOST_TAKEN)
	{
		rival->refused_at = now;
		verdict = RIVAL_REFUSED;
	}
	else
	{
		rival->taken_at = now;
		verdict = rival->taken++ == 0 ? RIVAL_FIRST : RIVAL_AGAIN;
	}
	LWLockRelease(shmem_state()->lock);
	return verdict;
}

/*
 * The workers of this database for which somebody was refused since a time. Returns how
 * many; the array is allocated in the current memory context.
 */
int
rivals_refused(TimestampTz since, Rival **refused)
{
	int n = 0;

	*refused = palloc(RIVALS * sizeof(Rival));
	LWLockAcquire(shmem_state()->lock, LW_SHARED);
	for (int i = 0; i < RIVALS; i++)
	{
		const Rival *rival = &shmem_state()->rivals[i];

		if (rival->database == MyDatabaseId && rival->refused_at > since)
			(*refused)[n++] = *rival;
	}
	LWLockRelease(shmem_state()->lock);
	return n;
}
