/*
 * store/meets.c
 *	  Which capability sets meet which shapes, remembered by this process.
 *
 * The leader asks that of every shape and of every distinct set of capabilities at each
 * tick. Both are named by digests of what they are, so an answer never goes stale; when
 * there are too many answers, all of them are forgotten. Knows nothing of demand.
 */
#include "postgres.h"

#include "queue/match.h"
#include "store/meets.h"
#include "store/task.h"
#include "store/worker.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* Answers that are remembered: some 12 MB. */
#define MAX_ANSWERS 262144

typedef struct AnswerKey
{
	int64 capset;
	int64 shape;
} AnswerKey;

typedef struct Answer
{
	AnswerKey key;
	bool meets;
} Answer;

static HTAB *answers = NULL;

/* Find out whether a set meets a shape; false when no such shape is stored. */
static bool
match_shape(CapabilitySet *set, int64 shape, bool *meets)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context;
	char *kind;
	Jsonb *requirements;
	bool stored;

	if (set->worker != 0 && set->capabilities == NULL)
		set->capabilities = store_worker_capabilities(set->worker);
	context = AllocSetContextCreate(outer, "gpu_orch match", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	stored = store_shape_load(shape, &kind, &requirements);
	*meets = stored &&
		(set->capabilities == NULL || match_satisfies(set->capabilities, requirements, kind, NULL));
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	return stored;
}

/*
 * Whether a worker with these capabilities meets a shape; false when no such shape is
 * stored. Capabilities that are read here are allocated in the current memory context.
 */
bool
store_meets(CapabilitySet *set, int64 shape)
{
	AnswerKey key = { set->digest, shape };
	Answer *answer = answers ? hash_search(answers, &key, HASH_FIND, NULL) : NULL;
	bool meets;

	if (answer != NULL)
		return answer->meets;
	if (!match_shape(set, shape, &meets))
		return false;
	if (answers != NULL && hash_get_num_entries(answers) >= MAX_ANSWERS)
	{
		hash_destroy(answers);
		answers = NULL;
	}
	if (answers == NULL)
	{
		HASHCTL control = { .keysize = sizeof(AnswerKey),
							.entrysize = sizeof(Answer),
							.hcxt = TopMemoryContext };

		answers = hash_create("gpu_orch shapes met", 1024, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	answer = hash_search(answers, &key, HASH_ENTER, NULL);
	answer->meets = meets;
	return meets;
}
