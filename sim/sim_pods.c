/*
 * sim_pods.c
 *	  Pods: their life as seen on the provider's clock.
 *
 * A status is never stored: it follows from when the pod was started and from what halted it, so
 * moving the clock moves everything. Ended pods stay in memory, for the ledger.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyz0123456789"
#define HEX "0123456789abcdef"

/* Make a pod that is started now and bill it; takes over the reference to spec. */
SimPod *
sim_pod_new(const SimGpu *gpu, int count, const SimDataCenter *place, bool community, json_t *spec)
{
	SimPod *pod = sim_alloc(sizeof(SimPod));
	double now = sim_now();
	char secret[33];

	do
		sim_random_text(&sim.random, ALPHANUMERIC, pod->id, POD_ID_BYTES);
	while (sim_pod_find(pod->id) != NULL);
	sim_random_text(&sim.random, HEX, secret, 32);
	snprintf(pod->api_key, sizeof(pod->api_key), "rpa_%s", secret);
	pod->seq = sim.n_pods + 1;
	pod->spec = spec;
	pod->gpu = gpu;
	pod->gpu_count = count;
	pod->data_center = place;
	pod->community = community;
	pod->cost = (community ? gpu->price_community : gpu->price_secure) * count;
	snprintf(pod->cuda, sizeof(pod->cuda), "13.0");
	pod->created_at = pod->started_at = now;
	pod->starts = 1;
	pod->boot_seconds = sim.boot_seconds;
	pod->halt_at = pod->vanish_at = INFINITY;

	sim.pods = sim_grow(sim.pods, sim.n_pods, sizeof(SimPod *));
	json_object_set_new(sim.pod_index, pod->id, json_integer(sim.n_pods));
	sim.pods[sim.n_pods++] = pod;
	TAILQ_INSERT_TAIL(&sim.live, pod, link);
	sim_meter_switch(pod, now, true);
	return pod;
}

/* A pod by its id, ended ones too; or NULL. */
SimPod *
sim_pod_find(const char *id)
{
	const json_t *place = json_object_get(sim.pod_index, id);

	return place != NULL ? sim.pods[json_integer_value(place)] : NULL;
}

/* The live pod that owns a key, or NULL. */
SimPod *
sim_pod_by_key(const char *key)
{
	SimPod *pod;

	TAILQ_FOREACH(pod, &sim.live, link)
	{
		if (strcmp(pod->api_key, key) == 0)
			return pod;
	}
	return NULL;
}

/* When the pod's present start has booted; INFINITY if it never will. */
double
sim_pod_booted_at(const SimPod *pod)
{
	return pod->stuck_status != NULL ? INFINITY : pod->started_at + pod->boot_seconds;
}

/* The word for where a pod is in its life. An ended pod keeps its last one. */
const char *
sim_pod_status(const SimPod *pod, double now)
{
	double provision = sim.provision_seconds >= 0 ? sim.provision_seconds : pod->boot_seconds / 3;

	if (pod->halted != NULL)
		return pod->halted;
	if (pod->stuck_status != NULL)
		return pod->stuck_status;
	if (!sim.staged || now >= sim_pod_booted_at(pod))
		return "RUNNING";
	if (pod->starts == 1 && now < pod->started_at + provision)
		return "PROVISIONING";
	return "STARTING";
}

/* Should the pod's container be running? */
bool
sim_pod_runs(const SimPod *pod, double now)
{
	return pod->deleted_at == 0 && pod->halted == NULL && now >= sim_pod_booted_at(pod);
}

/* When the present container began, for a pod that runs. */
double
sim_pod_container_start(const SimPod *pod, double now)
{
	double start = pod->container_at > 0 ? pod->container_at : sim_pod_booted_at(pod);

	if (pod->crash_every > 0)
		start += floor((now - start) / pod->crash_every) * pod->crash_every;
	return start;
}

/* Let a pod stop: EXITED or ERROR. It keeps its disk and pays for that alone. */
void
sim_pod_halt(SimPod *pod, double at, const char *status)
{
	pod->halted = status;
	pod->halt_at = INFINITY;
	sim_meter_switch(pod, at, false);
}

/* End a pod for good; by is a word for the ledger. */
void
sim_pod_end(SimPod *pod, double at, const char *by)
{
	pod->deleted_at = at;
	pod->ended_by = by;
	sim_meter_stop(pod, at);
	sim.billed_ended += sim_billed(pod, 0, at, NULL);
	TAILQ_REMOVE(&sim.live, pod, link);
}

/* Start a pod anew, from halted or running. */
void
sim_pod_start(SimPod *pod, double now)
{
	if (pod->halted != NULL)
		sim_meter_switch(pod, now, true);
	pod->halted = NULL;
	pod->no_gpus = false;
	pod->stale_seconds = 0;
	pod->started_at = now;
	pod->container_at = 0;
	pod->starts++;
}

/* Let happen what was to happen by itself until now: late effects, halts, an empty purse. */
void
sim_pods_tick(double now)
{
	bool broke;
	SimPod *pod;
	SimPod *next;

	sim_later_run(now);
	broke = sim_balance(now) <= 0;
	for (pod = TAILQ_FIRST(&sim.live); pod != NULL; pod = next)
	{
		const json_t *mounts = json_object_get(pod->spec, "mounts");

		next = TAILQ_NEXT(pod, link);
		if (now >= pod->halt_at && pod->halted == NULL)
			sim_pod_halt(pod, pod->halt_at, pod->halt_as);
		if (now >= pod->vanish_at)
			sim_pod_end(pod, pod->vanish_at, "vanish");
		else if (broke && json_array_size(json_object_get(mounts, "network")) == 0)
			sim_pod_end(pod, now, "balance");
		else if (broke && pod->halted == NULL)
			sim_pod_halt(pod, now, "EXITED");
	}
}
