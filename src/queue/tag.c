/*
 * queue/tag.c
 *	  Fair shares: the tags by which tasks of equal priority are ordered.
 *
 * Start-time fair queueing in its self-clocked form (Golestani 1994; Goyal, Vin,
 * Cheng 1996): a task that becomes ready gets the tag
 *
 *		max(virtual time, its tenant's last tag) + cost / weight
 *
 * and keeps it. The virtual time is the tag of the last claim, so a tenant that
 * comes anew starts where the others are, and one that floods the queue puts only
 * its own tasks further back. The cost is what the tenant's tasks took lately;
 * what a task really took, more or less than that, is added to later tags.
 *
 * Tags are microseconds of service at weight 1. A tenant's tags never decrease,
 * so that its tasks stay in the order in which they came. What is kept here is
 * lost with a restart; queue/ready.c restores it from the queue.
 */
#include "postgres.h"

#include "queue/tag.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

/* Tenants that are known at a time, over all queues. */
#define MAX_TENANTS 4096

/* What a tenant's tasks are taken to cost before any has ended. */
#define FIRST_COST USECS_PER_SEC

typedef struct TenantKey
{
	QueueId queue;
	int32 tenant;
} TenantKey;

typedef struct TenantEntry
{
	TenantKey key;
	int64 last; /* its last tag */
	int64 owed; /* service beyond what its tags stand for; may be negative */
	int64 cost; /* of one task, a moving average */
	uint64 used_at;
} TenantEntry;

typedef struct TagState
{
	LWLock *lock;
	uint64 clock; /* counts uses, to find what was not used for longest */
} TagState;

static TagState *state = NULL;
static HTAB *tenants = NULL;

/* Shared memory that is needed. */
Size
queue_tag_size(void)
{
	return add_size(MAXALIGN(sizeof(TagState)),
					hash_estimate_size(MAX_TENANTS, sizeof(TenantEntry)));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
queue_tag_startup(LWLock *lock)
{
	HASHCTL control = { 0 };
	bool found;

	state = ShmemInitStruct("gpu_orch tags", sizeof(TagState), &found);
	if (!found)
	{
		state->lock = lock;
		state->clock = 0;
	}
	control.keysize = sizeof(TenantKey);
	control.entrysize = sizeof(TenantEntry);
	tenants = ShmemInitHash("gpu_orch tenants", MAX_TENANTS, MAX_TENANTS, &control,
							HASH_ELEM | HASH_BLOBS);
}

/* Forget what was not used for longest, be it a tenant or a virtual time. Under the lock. */
static void
forget_one(void)
{
	HASH_SEQ_STATUS scan;
	TenantEntry *entry;
	TenantKey oldest = { 0 };
	uint64 used_at = PG_UINT64_MAX;

	hash_seq_init(&scan, tenants);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->used_at < used_at)
		{
			used_at = entry->used_at;
			oldest = entry->key;
		}
	(void) hash_search(tenants, &oldest, HASH_REMOVE, NULL);
}

/*
 * A queue begins to be used: forget what was known of the one that its database had
 * before the table was truncated or rewritten.
 */
void
queue_tag_begin(QueueId queue)
{
	HASH_SEQ_STATUS scan;
	TenantEntry *entry;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, tenants);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->key.queue.database == queue.database && entry->key.queue.file != queue.file)
			(void) hash_search(tenants, &entry->key, HASH_REMOVE, NULL);
	LWLockRelease(state->lock);
}

/* A tenant's entry, made if it is new. Under the lock. */
static TenantEntry *
tenant_entry(QueueId queue, int32 tenant)
{
	TenantKey key = { queue, tenant };
	TenantEntry *entry = hash_search(tenants, &key, HASH_FIND, NULL);

	if (entry == NULL)
	{
		if (hash_get_num_entries(tenants) >= MAX_TENANTS)
			forget_one();
		entry = hash_search(tenants, &key, HASH_ENTER, NULL);
		entry->last = entry->owed = 0;
		entry->cost = FIRST_COST;
	}
	entry->used_at = ++state->clock;
	return entry;
}

/*
 * The tag of a tenant's task that becomes ready now. Where tasks of its shape
 * wait, the virtual time is theirs: workers of other shapes may be further.
 */
int64
queue_tag_next(QueueId queue, int64 shape, int32 tenant, double weight)
{
	TenantEntry *entry;
	ShapeView view;
	int64 virtual_time;
	int64 earliest;
	bool waits = queue_places_find(queue, shape, &view, false) && view.bound.work;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	virtual_time = tenant_entry(queue, QUEUE_VIRTUAL_TIME)->last;
	if (waits)
		virtual_time = Min(virtual_time, Max(view.last_tag, view.bound.bound.tag));
	entry = tenant_entry(queue, tenant);
	earliest = entry->last;
	entry->last = Max(virtual_time, entry->last + (int64) (entry->owed / weight)) +
		(int64) (entry->cost / weight);
	entry->last = Max(entry->last, earliest);
	entry->owed = 0;
	earliest = entry->last;
	LWLockRelease(state->lock);
	return earliest;
}

/* A task of a shape with this tag was claimed: the virtual time. */
void
queue_tag_claimed(QueueId queue, int64 shape, int64 tag)
{
	TenantEntry *entry;

	queue_places_claimed(queue, shape, tag);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = tenant_entry(queue, QUEUE_VIRTUAL_TIME);
	entry->last = Max(entry->last, tag);
	LWLockRelease(state->lock);
}

/* A tenant's task held a worker for so long. */
void
queue_tag_served(QueueId queue, int32 tenant, int64 microseconds)
{
	TenantEntry *entry;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = tenant_entry(queue, tenant);
	entry->owed += microseconds - entry->cost;
	entry->cost += (microseconds - entry->cost) / 8;
	entry->cost = Max(entry->cost, 1);
	LWLockRelease(state->lock);
}

/*
 * A tenant, or the queue as a whole (QUEUE_VIRTUAL_TIME), was as far as this tag
 * before a restart.
 */
void
queue_tag_restore(QueueId queue, int32 tenant, int64 last)
{
	TenantEntry *entry;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	entry = tenant_entry(queue, tenant);
	entry->last = Max(entry->last, last);
	LWLockRelease(state->lock);
}
