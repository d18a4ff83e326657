/*
 * store/places_wanted.c
 *	  The alert of tenants whose tasks wait for places for their shapes.
 *
 * That a tenant was refused a place is noted where places are given (queue/places.c);
 * here only whether it still has held tasks is asked of the tables.
 */
#include "postgres.h"

#include "queue/ready.h"
#include "store/alert.h"
#include "store/places_wanted.h"
#include "store/tenant.h"
#include "utils/timestamp.h"

/* A tenant waits for long when it was given no place for so long, in microseconds. */
#define LONG_WAIT (5 * USECS_PER_MINUTE)

/* Tenants of which an alert tells at a time. */
#define MAX_TENANTS 100

static bool
has_held_tasks(int32 tenant)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.waiting WHERE tenant = $1 AND state = 'held' LIMIT 1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool held;

	spi_begin();
	spi_arg_int4(&args, tenant);
	held = spi_read(&query, &args, 1) == 1;
	spi_end();
	return held;
}

/* Raise the alert for each tenant whose tasks have waited for places for long, or clear it. */
void
store_places_wanted_watch(TimestampTz now)
{
	AlertCase cases[MAX_TENANTS];
	int32 content[MAX_TENANTS];
	int n_content = 0;
	int n = 0;
	int32 tenant;

	for (int at = 0; n < MAX_TENANTS && n_content < MAX_TENANTS &&
		 store_queue_refused(now - LONG_WAIT, &at, &tenant);)
	{
		if (has_held_tasks(tenant))
			cases[n++] = (AlertCase){ psprintf("tenant %s", store_tenant_name(tenant)),
									  "no place for one more of its requirements for 5 minutes" };
		else
			content[n_content++] = tenant;
	}
	for (int i = 0; i < n_content; i++)
		store_queue_content(content[i]);
	store_alert_all(ALERT_SHAPE_LIMIT, cases, n, now);
}
