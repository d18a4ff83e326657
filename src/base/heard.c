/*
 * base/heard.c
 *	  When workers were heard of whose rows somebody has locked.
 *
 * A heartbeat writes the worker's row unless it would have to wait for the row: an
 * operator's open transaction may have it for long. The time of such a heartbeat is kept
 * here, in shared memory, and whoever asks when a worker was last heard of takes the later
 * of the two. A restart forgets it, and silence before a start of the leader proves nothing
 * anyway. Nothing here reads a table.
 */
#include "postgres.h"

#include "base/heard.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

/* Workers whose rows may be locked at a time; of more, those heard of longest ago are forgotten. */
#define MAX_HEARD 16384

typedef struct HeardKey
{
	Oid database;
	uint32 unused; /* 0: there must be no byte that is not set */
	int64 worker;
} HeardKey;

typedef struct Heard
{
	HeardKey key;
	TimestampTz at;
} Heard;

static HTAB *table = NULL;
static LWLock *table_lock = NULL;

/* Shared memory that is needed. */
Size
heard_size(void)
{
	return hash_estimate_size(MAX_HEARD, sizeof(Heard));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
heard_startup(LWLock *lock)
{
	HASHCTL control = { .keysize = sizeof(HeardKey), .entrysize = sizeof(Heard) };

	table_lock = lock;
	table = ShmemInitHash("gpu_orch heard", MAX_HEARD, MAX_HEARD, &control, HASH_ELEM | HASH_BLOBS);
}

/* Make room for one more. Under the exclusive lock. */
static void
forget_oldest(void)
{
	HASH_SEQ_STATUS scan;
	Heard *heard;
	Heard oldest = { .at = PG_INT64_MAX };

	hash_seq_init(&scan, table);
	while ((heard = hash_seq_search(&scan)) != NULL)
		if (heard->at < oldest.at)
			oldest = *heard;
	(void) hash_search(table, &oldest.key, HASH_REMOVE, NULL);
}

/*
 * A worker of this database was heard of. Kept if its row is locked, or was once: its
 * heartbeat may write the row in a transaction that does not commit for a while.
 */
void
heard_note(int64 worker, bool locked, TimestampTz now)
{
	HeardKey key = { MyDatabaseId, 0, worker };
	bool found;

	LWLockAcquire(table_lock, LW_SHARED);
	found = hash_search(table, &key, HASH_FIND, NULL) != NULL;
	LWLockRelease(table_lock);
	if (!found && !locked)
		return;
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	if (!found && hash_get_num_entries(table) >= MAX_HEARD)
		forget_oldest();
	((Heard *) hash_search(table, &key, HASH_ENTER, NULL))->at = now;
	LWLockRelease(table_lock);
}

/* When a worker of this database was heard of last, if its row does not say so; 0: it does. */
TimestampTz
heard_at(int64 worker)
{
	HeardKey key = { MyDatabaseId, 0, worker };
	Heard *heard;
	TimestampTz at;

	if (table == NULL)
		return 0;
	LWLockAcquire(table_lock, LW_SHARED);
	heard = hash_search(table, &key, HASH_FIND, NULL);
	at = heard != NULL ? heard->at : 0;
	LWLockRelease(table_lock);
	return at;
}
