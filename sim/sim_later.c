/*
 * sim_later.c
 *	  Calls that take effect after they were answered, or were given up by their client.
 *
 * Such a call lives on as a request without a connection until it is due on the provider's clock.
 * The clock is set back to that moment while the call takes effect.
 */
#include <string.h>

#include "sim.h"

/* Let a request that was just answered take effect later, as its rule wants. */
void
sim_later_add(const SimRequest *request)
{
	SimRule *rule = request->faults[FAULT_EFFECT];
	SimRequest *late = sim_alloc(sizeof(SimRequest));
	SimRequest *next;

	late->method = request->route->method;
	late->path = request->route->path;
	late->route = request->route;
	memcpy(late->segment, request->segment, sizeof(late->segment));
	late->json = json_incref(request->json);
	late->key_pod = request->key_pod;
	memcpy(late->faults, request->faults, sizeof(late->faults));
	late->record = request->record;
	late->entry = request->entry;
	late->due = sim_now() + sim_rule_number(rule, "seconds", 5) +
		sim_random_fraction(&rule->random) * sim_rule_number(rule, "jitter", 0);
	TAILQ_FOREACH(next, &sim.later, link)
	{
		if (next->due > late->due)
			break;
	}
	if (next != NULL)
		TAILQ_INSERT_BEFORE(next, late, link);
	else
		TAILQ_INSERT_TAIL(&sim.later, late, link);
}

/* Forget a request. */
static void
discard(SimRequest *late)
{
	TAILQ_REMOVE(&sim.later, late, link);
	json_decref(late->json);
	json_decref(late->answer);
	free(late);
}

/* Let take effect what is due. */
void
sim_later_run(double now)
{
	SimRequest *late;

	while ((late = TAILQ_FIRST(&sim.later)) != NULL && late->due <= now + 1e-6)
	{
		sim.as_of = late->due;
		late->route->serve(late);
		sim_ledger_note_effect(late);
		sim.as_of = 0;
		discard(late);
	}
}

/* Forget all that is still to take effect. */
void
sim_later_stop(void)
{
	while (!TAILQ_EMPTY(&sim.later))
		discard(TAILQ_FIRST(&sim.later));
}
