/*
 * base/provider_stats.c
 *	  The counters of calls to the provider, for SQL to read.
 *
 * The leader writes them (leader/stats.c) and nobody else; they begin at zero when the
 * server starts. Of the key they hold the beginning of a digest. They explain and never
 * decide. Must not be read for anything that a call depends on.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "base/shmem.h"
#include "base/value.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(gpu_orch_api_counters);

static const char *const call_names[PROVIDER_CALLS] = { "create",  "get",	  "list",	"delete",
														"catalog", "account", "billing" };

/*
 * SQL: api_counters() -> one row for each kind of call; none where the library is not
 * preloaded.
 */
Datum
gpu_orch_api_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ProviderStats stats;

	InitMaterializedSRF(fcinfo, 0);
	if (!shmem_available())
		return (Datum) 0;
	LWLockAcquire(shmem_state()->lock, LW_SHARED);
	stats = shmem_state()->provider;
	LWLockRelease(shmem_state()->lock);
	for (int c = 0; c < PROVIDER_CALLS; c++)
	{
		const ProviderCall *call = &stats.calls[c];
		Datum values[13];
		bool nulls[13] = { false };

		values[0] = CStringGetTextDatum(call_names[c]);
		values[1] = Int64GetDatum(call->calls);
		values[2] = Int64GetDatum(call->failures);
		values[3] = Int32GetDatum(call->in_flight);
		values[4] = value_time(call->last_success, &nulls[4]);
		values[5] = value_time(call->last_failure, &nulls[5]);
		values[6] = value_text(call->reason, &nulls[6]);
		values[7] = value_text(call->message, &nulls[7]);
		values[8] = BoolGetDatum(call->shut);
		values[9] = value_time(call->retry_at, &nulls[9]);
		values[10] = value_text(stats.key, &nulls[10]);
		values[11] = value_time(stats.key_since, &nulls[11]);
		values[12] = TimestampTzGetDatum(stats.since);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
