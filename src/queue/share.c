/*
 * queue/share.c
 *	  How many places for shapes each tenant has, may have, and waits for.
 *
 * Of what the others leave, one may have three quarters. So there is always something
 * left for who has nothing yet, and nobody has to be thrown out: the first one leaves
 * a quarter, the second one a quarter of that.
 *
 * Counts only. Who has which place is queue/places.c's; its lock guards what is
 * counted here, and the callers of these functions hold it, exclusively where
 * something changes.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/guc.h"
#include "queue/share.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

typedef struct TenantKey
{
	Oid database;
	int32 tenant;
} TenantKey;

typedef struct TenantEntry
{
	TenantKey key;
	int n;					   /* places that it has */
	TimestampTz refused_since; /* 0: since it got its last place it was refused none */
} TenantEntry;

static HTAB *tenants = NULL;

/* As many tenants have places, or fewer, and as many may have been refused one. */
static int
max_entries(void)
{
	return 2 * guc_max_shapes;
}

/* Shared memory that is needed. */
Size
queue_share_size(void)
{
	return hash_estimate_size(max_entries(), sizeof(TenantEntry));
}

/* Set up or attach to shared memory; under AddinShmemInitLock. */
void
queue_share_startup(void)
{
	HASHCTL control = { .keysize = sizeof(TenantKey), .entrysize = sizeof(TenantEntry) };

	tenants = ShmemInitHash("gpu_orch tenants with places", max_entries(), max_entries(), &control,
							HASH_ELEM | HASH_BLOBS);
}

static TenantEntry *
find(Oid database, int32 tenant)
{
	TenantKey key = { database, tenant };

	return hash_search(tenants, &key, HASH_FIND, NULL);
}

/* The entry of a tenant, made if it is new; NULL if there is no memory for it. */
static TenantEntry *
enter(Oid database, int32 tenant)
{
	TenantKey key = { database, tenant };
	bool found;
	TenantEntry *entry = hash_search(tenants, &key, HASH_ENTER_NULL, &found);

	if (entry != NULL && !found)
		entry->n = entry->refused_since = 0;
	return entry;
}

static void
drop_if_empty(TenantEntry *entry)
{
	if (entry->n == 0 && entry->refused_since == 0)
		(void) hash_search(tenants, &entry->key, HASH_REMOVE, NULL);
}

/* How many places one may have of those that the others leave. */
int
queue_share_of_locked(int left)
{
	return (int) (((int64) left * 3 + 3) / 4);
}

/*
 * Whether a tenant may have one more of the places that its database may have, of which
 * all of the database's tenants together use so many.
 */
bool
queue_share_allows_locked(Oid database, int32 tenant, int share, int used)
{
	TenantEntry *entry = find(database, tenant);
	int mine = entry ? entry->n : 0;

	return mine < queue_share_of_locked(share - (used - mine));
}

/* A tenant has got a place, or lost one: a change of 1 or -1. */
void
queue_share_charge_locked(Oid database, int32 tenant, int change)
{
	TenantEntry *entry = enter(database, tenant);

	if (entry == NULL)
		return;
	entry->n = Max(entry->n + change, 0);
	if (change > 0)
		entry->refused_since = 0;
	drop_if_empty(entry);
}

/* A tenant was refused a place. */
void
queue_share_refuse_locked(Oid database, int32 tenant)
{
	TenantEntry *entry = find(database, tenant);

	if (entry == NULL && hash_get_num_entries(tenants) < guc_max_shapes)
		entry = enter(database, tenant);
	if (entry != NULL && entry->refused_since == 0)
		entry->refused_since = clock_now();
}

/*
 * A tenant that was refused places since a time or longer, and was given none since;
 * *at counts on from 0. False when there are no more.
 */
bool
queue_share_refused_locked(Oid database, TimestampTz since, int *at, int32 *tenant)
{
	HASH_SEQ_STATUS scan;
	TenantEntry *entry;
	int i = 0;

	hash_seq_init(&scan, tenants);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->key.database == database && entry->refused_since != 0 &&
			entry->refused_since <= since && i++ == *at)
		{
			*tenant = entry->key.tenant;
			(*at)++;
			hash_seq_term(&scan);
			return true;
		}
	return false;
}

/* A tenant waits for no place any more. */
void
queue_share_content_locked(Oid database, int32 tenant)
{
	TenantEntry *entry = find(database, tenant);

	if (entry == NULL)
		return;
	entry->refused_since = 0;
	drop_if_empty(entry);
}
