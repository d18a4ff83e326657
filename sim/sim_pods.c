/*
 * sim_pods.c
 *	  Pods: their life as seen on the provider's clock, and the calls on them but the create.
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
/* Seconds from the start of a container to its public ports. */
#define PORT_DELAY 1.0

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
	pod->halt_at = pod->vanish_at = INFINITY;

	if ((sim.n_pods & (sim.n_pods - 1)) == 0)
	{
		sim.pods =
			realloc(sim.pods, sizeof(SimPod *) * (size_t) (sim.n_pods > 0 ? 2 * sim.n_pods : 1));
		if (sim.pods == NULL)
			abort();
	}
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
static double
booted_at(const SimPod *pod)
{
	return pod->stuck_status != NULL ? INFINITY : pod->started_at + sim.boot_seconds;
}

/* The word for where a pod is in its life. An ended pod keeps its last one. */
const char *
sim_pod_status(const SimPod *pod, double now)
{
	if (pod->halted != NULL)
		return pod->halted;
	if (pod->stuck_status != NULL)
		return pod->stuck_status;
	if (!sim.staged || now >= booted_at(pod))
		return "RUNNING";
	if (pod->starts == 1 && now < pod->started_at + sim.boot_seconds / 3)
		return "PROVISIONING";
	return "STARTING";
}

/* Should the pod's container be running? */
bool
sim_pod_runs(const SimPod *pod, double now)
{
	return pod->deleted_at == 0 && pod->halted == NULL && now >= booted_at(pod);
}

/* When the present container began, for a pod that runs. */
static double
container_start(const SimPod *pod, double now)
{
	double start = pod->container_at > 0 ? pod->container_at : booted_at(pod);

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
static void
start_again(SimPod *pod, double now)
{
	if (pod->halted != NULL)
		sim_meter_switch(pod, now, true);
	pod->halted = NULL;
	pod->started_at = now;
	pod->container_at = 0;
	pod->starts++;
}

/* Let happen what was to happen by itself until now: halts, vanishing, an empty purse. */
void
sim_pods_tick(double now)
{
	bool broke = sim_balance(now) <= 0;

	SimPod *pod;
	SimPod *next;

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

/* ---- the pod as JSON ---- */

/* What may be done with a pod of this status. New reference. */
static json_t *
actions_json(const char *status)
{
	if (strcmp(status, "RUNNING") == 0)
		return json_pack("[s, s, s]", "stop", "restart", "terminate");
	if (strcmp(status, "PROVISIONING") == 0 || strcmp(status, "STARTING") == 0)
		return json_pack("[s, s]", "stop", "terminate");
	return json_pack("[s, s]", "start", "terminate");
}

/* The public number of the pod's n-th port; another one after each start. */
static int
public_port(const SimPod *pod, size_t n)
{
	return 20000 + (int) ((pod->seq * 97 + pod->starts * 31 + (long) n) % 40000);
}

/* The pod's ports with an http entry that nobody asked for. New reference. */
static json_t *
ports_json(const SimPod *pod, bool mapped)
{
	json_t *list = json_array();
	json_t *port;
	size_t i;

	json_array_foreach(json_object_get(pod->spec, "ports"), i, port)
	{
		char *rest;
		int number = (int) strtol(json_string_value(port), &rest, 10);
		json_t *public = mapped ? json_integer(public_port(pod, i)) : json_null();

		json_array_append_new(list,
							  json_pack("{s:s?, s:i, s:o, s:s}", "ip", mapped ? "127.0.0.1" : NULL,
										"private", number, "public", public, "type",
										strcmp(rest, "/tcp") == 0 ? "tcp" : "http"));
	}
	json_array_append_new(list,
						  json_pack("{s:s, s:i, s:i, s:s}", "ip", "127.0.0.1", "private", 19123,
									"public", public_port(pod, i), "type", "http"));
	return list;
}

/* What the container reports; null until it has booted. New reference. */
static json_t *
runtime_json(const SimPod *pod, double now)
{
	double up = now - container_start(pod, now);
	json_t *gpus;

	if (!sim_pod_runs(pod, now))
		return json_null();
	gpus = json_array();
	for (int i = 0; i < pod->gpu_count; i++)
		json_array_append_new(gpus, json_pack("{s:i, s:i}", "util", 0, "memoryUtil", 0));
	return json_pack("{s:i, s:o, s:{s:i}, s:{s:i}, s:o}", "uptime", up > 0 ? (int) up : 0, "gpus",
					 gpus, "cpu", "util", 0, "memory", "util", 0, "ports",
					 ports_json(pod, now >= booted_at(pod) + PORT_DELAY));
}

/* The ways in: the proxy at once, the direct one when port 22 is mapped. New reference. */
static json_t *
ssh_json(const SimPod *pod, double now)
{
	json_t *direct = NULL;
	json_t *port;
	size_t i;
	char user[64];

	json_array_foreach(json_object_get(pod->spec, "ports"), i, port)
	{
		int number = public_port(pod, i);

		if (strcmp(json_string_value(port), "22/tcp") != 0 || !sim_pod_runs(pod, now) ||
			now < booted_at(pod) + PORT_DELAY)
			continue;
		direct = json_pack("{s:s, s:i, s:s, s:o}", "host", "127.0.0.1", "port", number, "username",
						   "root", "command", json_sprintf("ssh root@127.0.0.1 -p %d", number));
		break;
	}
	snprintf(user, sizeof(user), "%s-%.8s", pod->id, pod->api_key + 4);
	return json_pack("{s:{s:s, s:i, s:s, s:o}, s:o}", "proxy", "host", "ssh.runpod.io", "port", 22,
					 "username", user, "command", json_sprintf("ssh %s@ssh.runpod.io", user),
					 "direct", direct != NULL ? direct : json_null());
}

/* A pod with every key that the provider always sends. New reference. */
json_t *
sim_pod_json(const SimPod *pod, double now)
{
	const char *status = sim_pod_status(pod, now);
	json_t *json = json_pack("{s:s, s:s, s:o}", "id", pod->id, "status", status, "actions",
							 actions_json(status));

	json_object_update(json, pod->spec);
	json_object_set_new(
		json, "globalNetworking",
		json_pack("{s:O}", "enabled", json_object_get(pod->spec, "globalNetworking")));
	json_object_set_new(json, "gpu",
						json_pack("{s:s, s:i, s:i, s:i}", "id", pod->gpu->id, "count",
								  pod->gpu_count, "vcpuCount", 8 * pod->gpu_count, "memory",
								  32 * pod->gpu_count));
	json_object_set_new(json, "cloud", json_string(pod->community ? "COMMUNITY" : "SECURE"));
	json_object_set_new(json, "dataCenterId", json_string(pod->data_center->id));
	json_object_set_new(json, "cudaVersion", json_string(pod->cuda));
	json_object_set_new(json, "ssh", ssh_json(pod, now));
	json_object_set_new(json, "template", json_null());
	json_object_set_new(json, "cost", json_real(pod->cost));
	json_object_set_new(json, "locked", json_boolean(pod->locked));
	json_object_set_new(json, "runtime", runtime_json(pod, now));
	json_object_set_new(json, "createdAt", sim_time_json(pod->created_at));
	json_object_set_new(json, "startedAt", sim_time_json(pod->started_at));
	return json;
}

/* ---- the calls ---- */

/* Is a pod withheld because a rule lets it appear late? */
static bool
is_hidden(const SimRequest *request, const SimPod *pod, double now)
{
	return sim_fault_is(request, FAULT_VIEW, "hide_new") &&
		now < pod->created_at + sim_fault_number(request->faults[FAULT_VIEW], "seconds", 5);
}

/* Does a list show this pod? Ended ones only where a rule lets them linger. */
static bool
is_listed(const SimRequest *request, const SimPod *pod, double now)
{
	if (pod->deleted_at == 0)
		return !is_hidden(request, pod, now);
	return sim_fault_is(request, FAULT_VIEW, "show_deleted") &&
		now < pod->deleted_at + sim_fault_number(request->faults[FAULT_VIEW], "seconds", 5);
}

/* A query parameter, or NULL. */
static const char *
query(const SimRequest *request, const char *key)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, key);
}

/*
 * Where a page begins and how long it may be: pods with a seq below *before, at most *limit.
 * False, and the request is answered, if the query is malformed.
 */
static bool
read_page(SimRequest *request, long *before, long *limit)
{
	const char *text = query(request, "limit");
	const char *cursor = query(request, "cursor");
	char *rest = "";
	unsigned long check = 0;

	*limit = 1000;
	*before = sim.n_pods + 1;
	if (text != NULL)
		*limit = strtol(text, &rest, 10);
	if (*rest != '\0' || *limit < 1 || *limit > 1000)
	{
		sim_fail(request, 422, "Request validation failed.",
				 json_pack("[s]", "limit: must be from 1 to 1000"));
		return false;
	}
	if (cursor != NULL &&
		(sscanf(cursor, "c%lx-%lx", (unsigned long *) before, &check) != 2 || *before < 1 ||
		 *before > sim.n_pods + 1 || check != (unsigned long) *before * 40503 % 65521))
	{
		sim_fail(request, 422, "Request validation failed.",
				 json_pack("[s]", "cursor: is not one of this list"));
		return false;
	}
	if (*limit > sim.page_size)
		*limit = sim.page_size;
	if (cursor != NULL && sim_fault_is(request, FAULT_VIEW, "overlap"))
		*before += (long) sim_fault_number(request->faults[FAULT_VIEW], "pods", 1);
	return true;
}

/* GET /v2/pods: newest first, all statuses, pods of others too. */
void
sim_pods_list(SimRequest *request)
{
	double now = sim_now();
	long before = sim.n_pods + 1;
	long limit = sim.n_pods;
	long last = 0;
	bool more = false;
	json_t *list;
	json_t *answer;

	if (sim.paging && !read_page(request, &before, &limit))
		return;
	if (sim_fault_is(request, FAULT_VIEW, "empty_list"))
		limit = 0;
	if (sim_fault_is(request, FAULT_VIEW, "partial_list"))
		limit = (long) sim_fault_number(request->faults[FAULT_VIEW], "pods", 1);
	list = json_array();
	for (int i = sim.n_pods - 1; i >= 0 && !more; i--)
	{
		const SimPod *pod = sim.pods[i];

		if (pod->seq >= before || !is_listed(request, pod, now))
			continue;
		if ((long) json_array_size(list) == limit)
			more = true;
		else
		{
			json_array_append_new(list, sim_pod_json(pod, now));
			last = pod->seq;
		}
	}
	answer = json_pack("{s:o}", "pods", list);
	if (sim.paging)
	{
		json_t *cursor;

		/* A rule that cuts the list says that it was all. */
		more = more && !sim_fault_is(request, FAULT_VIEW, "empty_list") &&
			!sim_fault_is(request, FAULT_VIEW, "partial_list");
		cursor = more ?
			json_sprintf("c%lx-%lx", (unsigned long) last, (unsigned long) last * 40503 % 65521) :
			json_null();
		json_object_set_new(answer, "pagination",
							json_pack("{s:o, s:b}", "nextCursor", cursor, "hasNextPage", more));
	}
	sim_reply(request, 200, answer);
}

/* The live pod that the path names; NULL with a 404 if there is none. */
static SimPod *
named_pod(SimRequest *request)
{
	SimPod *pod = sim_pod_find(request->segment);

	if (pod != NULL && pod->deleted_at == 0)
		return pod;
	sim_fail(request, 404, "pod not found", NULL);
	return NULL;
}

/* GET /v2/pods/{id}. */
void
sim_pods_get(SimRequest *request)
{
	double now = sim_now();
	SimPod *pod = named_pod(request);

	if (pod == NULL)
		return;
	if (is_hidden(request, pod, now))
		sim_fail(request, 404, "pod not found", NULL);
	else
		sim_reply(request, 200, sim_pod_json(pod, now));
}

/* PATCH /v2/pods/{id}: what is given replaces what was; locked guards against a stop. */
void
sim_pods_update(SimRequest *request)
{
	const json_t *locked = json_object_get(request->json, "locked");
	SimPod *pod;

	if (!sim_schema_update(request) || (pod = named_pod(request)) == NULL)
		return;
	json_object_update_existing(pod->spec, request->json);
	if (locked != NULL)
		pod->locked = json_is_true(locked);
	sim_reply(request, 200, sim_pod_json(pod, sim_now()));
}

/* Delete a pod; a rule may let it live on behind the answer. */
static void
delete_pod(SimRequest *request, SimPod *pod)
{
	if (!sim_fault_is(request, FAULT_POD, "keep_pod"))
	{
		sim_pod_end(pod, sim_now(), request->key_pod != NULL ? "pod" : "delete");
		request->executed = true;
		sim.deletes++;
	}
	sim_reply(request, 204, NULL);
}

/* DELETE /v2/pods/{id}. */
void
sim_pods_delete(SimRequest *request)
{
	SimPod *pod = named_pod(request);

	if (pod != NULL)
		delete_pod(request, pod);
}

/* POST /v2/pods/{id}/action. */
void
sim_pods_action(SimRequest *request)
{
	double now = sim_now();
	const char *status;
	const char *action;
	json_t *allowed;
	json_t *word;
	bool is_allowed = false;
	SimPod *pod;
	size_t i;

	if (!sim_schema_action(request) || (pod = named_pod(request)) == NULL)
		return;
	action = json_string_value(json_object_get(request->json, "action"));
	status = sim_pod_status(pod, now);
	allowed = actions_json(status);
	json_array_foreach(allowed, i, word)
	{
		if (strcmp(json_string_value(word), action) == 0)
			is_allowed = true;
	}
	json_decref(allowed);
	if (pod->locked && strcmp(action, "stop") == 0)
		sim_fail(request, 409, "The pod is locked.", NULL);
	else if (!is_allowed)
		sim_fail(request, 409, "The action is not allowed in the pod's status.", NULL);
	else if (strcmp(action, "terminate") == 0)
		delete_pod(request, pod);
	else
	{
		if (strcmp(action, "stop") == 0)
			sim_pod_halt(pod, now, "EXITED");
		else
			start_again(pod, now);
		request->executed = true;
		sim_reply(request, 200, sim_pod_json(pod, now));
	}
}
