/*
 * leader/stats.c
 *	  What the view api_stats shows: the leader counts its calls into shared memory.
 *
 * Counts and copies, and decides nothing. The key itself goes no further than into its
 * digest, of which a part is shown.
 */
#include "postgres.h"

#include "base/clock.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "leader/leader.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

StaticAssertDecl(PROVIDER_CALLS == CLOUD_LAST_CALL + 1, "a row for each kind of call");
StaticAssertDecl(CLOUD_CREATE == 0 && CLOUD_GET == 1 && CLOUD_LIST == 2 && CLOUD_DELETE == 3 &&
					 CLOUD_CATALOG == 4 && CLOUD_ACCOUNT == 5 && CLOUD_BILLING == 6,
				 "in the order of their names");

/* A call was started. */
void
leader_stats_started(CloudCall call)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	state->provider.calls[call].calls++;
	LWLockRelease(state->lock);
}

/*
 * A call was answered, or ended without an answer; `what` names the reason of a failure. A
 * pod that is asked for by its id is mostly one that was deleted: "not found" is the answer
 * that was wanted.
 */
void
leader_stats_note(const CloudAnswer *answer, const char *what)
{
	ShmemState *state = shmem_state();
	ProviderCall *call = &state->provider.calls[answer->call];
	TimestampTz now = clock_now();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (answer->verdict == CLOUD_OK ||
		(answer->call == CLOUD_GET && answer->reason == CR_NOT_FOUND))
		call->last_success = now;
	else
	{
		call->failures++;
		call->last_failure = now;
		strlcpy(call->reason, what, FAILURE_NAME);
		strlcpy(call->message, answer->message ? answer->message : "", FAILURE_TEXT);
	}
	LWLockRelease(state->lock);
}

/* Show which calls wait, and until when. To be called at each turn. */
void
leader_stats_show_gates(const Leader *leader)
{
	ShmemState *state = shmem_state();

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (int c = 0; c < PROVIDER_CALLS; c++)
	{
		ProviderCall *call = &state->provider.calls[c];

		call->in_flight = leader->gates[c].in_flight;
		call->retry_at = leader_gate_opens(leader, c);
		call->shut = leader_gate_is_shut(leader, c);
	}
	LWLockRelease(state->lock);
}

/* The beginning of a key's SHA-256, in hexadecimal; "?" where it cannot be computed. */
static void
compute_fingerprint(const char *key, char fingerprint[FINGERPRINT_LENGTH + 1])
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];

	if (context == NULL || pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) key, strlen(key)) < 0 ||
		pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
		strlcpy(fingerprint, "?", FINGERPRINT_LENGTH + 1);
	else
	{
		for (int i = 0; i < FINGERPRINT_LENGTH / 2; i++)
			snprintf(fingerprint + 2 * i, 3, "%02x", digest[i]);
	}
	pg_cryptohash_free(context);
	explicit_bzero(digest, sizeof(digest));
}

/*
 * The same, outside of transactions: what the server computes digests with needs an owner
 * of its resources.
 */
static void
take_fingerprint(const char *key, char fingerprint[FINGERPRINT_LENGTH + 1])
{
	ResourceOwner before = CurrentResourceOwner;
	ResourceOwner owner = ResourceOwnerCreate(NULL, "gpu_orch fingerprint");

	CurrentResourceOwner = owner;
	compute_fingerprint(key, fingerprint);
	CurrentResourceOwner = before;
	ResourceOwnerDelete(owner);
}

/* Calls are made with this key from now on; NULL: none are made. */
void
leader_stats_key(const char *key)
{
	ShmemState *state = shmem_state();
	char fingerprint[FINGERPRINT_LENGTH + 1] = "";

	if (key != NULL)
		take_fingerprint(key, fingerprint);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (strcmp(state->provider.key, fingerprint) != 0)
		state->provider.key_since = key != NULL ? clock_now() : 0;
	strlcpy(state->provider.key, fingerprint, sizeof(state->provider.key));
	LWLockRelease(state->lock);
}
