/*
 * sim_calls.c
 *	  The calls of REST v2 on pods, but the create.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* ---- what is shown, and what a rule withholds ---- */

/* Is a pod withheld because a rule lets it appear late? */
static bool
is_hidden(const SimRequest *request, const SimPod *pod, double now)
{
	return now < pod->created_at + sim_fault_seconds(request, FAULT_VIEW, "hide_new") ||
		now < pod->created_at + sim_fault_seconds(request, FAULT_VIEW, "late_list");
}

/* Does a list show this pod? Ended ones only where a rule lets them linger. */
static bool
is_listed(const SimRequest *request, const SimPod *pod, double now)
{
	const char *members = sim_query(request, "includeClusterPods");
	SimRule *rule = request->faults[FAULT_VIEW];

	if (pod->member && (members == NULL || strcmp(members, "true") != 0))
		return false;
	if (sim_fault_is(request, FAULT_VIEW, "patchy_list") &&
		sim_random_fraction(&rule->random) < sim_rule_number(rule, "missing", 0.5))
		return false;
	if (pod->deleted_at == 0)
		return !is_hidden(request, pod, now);
	return now < pod->deleted_at + sim_fault_seconds(request, FAULT_VIEW, "show_deleted") ||
		(now < pod->deleted_at + sim_fault_seconds(request, FAULT_VIEW, "late_list") &&
		 !is_hidden(request, pod, now));
}

/*
 * The pods that a list shows, newest first: those with a seq below before, at most limit. Writes
 * the seq of the last one where there are more, otherwise 0, to *last. New reference, of an array
 * of places in sim.pods.
 */
json_t *
sim_list(const SimRequest *request, long before, long limit, long *last)
{
	double now = sim_now();
	json_t *places = json_array();
	bool is_cut = sim_fault_is(request, FAULT_VIEW, "empty_list") ||
		sim_fault_is(request, FAULT_VIEW, "partial_list");

	if (is_cut)
		limit = (long) sim_rule_number(request->faults[FAULT_VIEW], "pods",
									   sim_fault_is(request, FAULT_VIEW, "partial_list"));
	*last = 0;
	for (int i = sim.n_pods - 1; i >= 0; i--)
	{
		if (sim.pods[i]->seq >= before || !is_listed(request, sim.pods[i], now))
			continue;
		if ((long) json_array_size(places) == limit)
		{
			/* A rule that cuts the list says that it was all. */
			if (!is_cut)
				*last =
					sim.pods[json_integer_value(json_array_get(places, (size_t) limit - 1))]->seq;
			break;
		}
		json_array_append_new(places, json_integer(i));
	}
	return places;
}

/* ---- the calls ---- */

/*
 * Where a page begins and how long it may be: pods with a seq below *before, at most *limit.
 * False, and the request is answered, if the query is malformed.
 */
static bool
read_page(SimRequest *request, long *before, long *limit)
{
	const char *text = sim_query(request, "limit");
	const char *cursor = sim_query(request, "cursor");
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
		*before += (long) sim_rule_number(request->faults[FAULT_VIEW], "pods", 1);
	return true;
}

/* GET /v2/pods: newest first, all statuses, pods of others too. */
void
sim_pods_list(SimRequest *request)
{
	double now = sim_now();
	long before = sim.n_pods + 1;
	long limit = sim.n_pods;
	long last;
	json_t *pods;
	json_t *places;
	json_t *place;
	json_t *answer;
	size_t i;

	if (sim.paging && !read_page(request, &before, &limit))
		return;
	pods = json_array();
	places = sim_list(request, before, limit, &last);
	json_array_foreach(places, i, place)
	{
		json_array_append_new(pods, sim_pod_json(sim.pods[json_integer_value(place)], now));
	}
	json_decref(places);
	answer = json_pack("{s:o}", "pods", pods);
	if (sim.paging)
	{
		json_t *cursor = last > 0 ?
			json_sprintf("c%lx-%lx", (unsigned long) last, (unsigned long) last * 40503 % 65521) :
			json_null();

		json_object_set_new(answer, "pagination",
							json_pack("{s:o, s:b}", "nextCursor", cursor, "hasNextPage", last > 0));
	}
	sim_reply(request, 200, answer);
}

/* The live pod that the path names; NULL with a 404 if there is none. */
SimPod *
sim_named_pod(SimRequest *request)
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
	SimPod *pod = sim_named_pod(request);

	if (pod == NULL)
		return;
	if (is_hidden(request, pod, now))
		sim_fail(request, 404, "pod not found", NULL);
	else
		sim_reply(request, 200, sim_pod_json(pod, now));
}

/* The live pod that the path names and that may be changed; NULL with a 404 or 409. */
static SimPod *
changeable_pod(SimRequest *request)
{
	SimPod *pod = sim_named_pod(request);

	if (pod == NULL || !pod->member)
		return pod;
	sim_fail(request, 409, "The pod is a member of a cluster.", NULL);
	return NULL;
}

/* PATCH /v2/pods/{id}: what is given replaces what was; locked guards against a stop. */
void
sim_pods_update(SimRequest *request)
{
	const json_t *locked = json_object_get(request->json, "locked");
	SimPod *pod;

	if (!sim_schema_update(request) || (pod = changeable_pod(request)) == NULL)
		return;
	json_object_update_existing(pod->spec, request->json);
	if (locked != NULL)
		pod->locked = json_is_true(locked);
	sim_reply(request, 200, sim_pod_json(pod, sim_now()));
}

/* Delete a pod; a rule may let it live on behind the answer. */
void
sim_pod_delete(SimRequest *request, SimPod *pod)
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
	SimPod *pod = changeable_pod(request);

	if (pod != NULL)
		sim_pod_delete(request, pod);
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

	if (!sim_schema_action(request) || (pod = changeable_pod(request)) == NULL)
		return;
	action = json_string_value(json_object_get(request->json, "action"));
	status = sim_pod_status(pod, now);
	allowed = sim_pod_actions(status);
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
		sim_pod_delete(request, pod);
	else
	{
		if (strcmp(action, "stop") == 0)
			sim_pod_halt(pod, now, "EXITED");
		else
		{
			sim_pod_start(pod, now);
			sim_fault_pod(request, pod);
		}
		request->executed = true;
		sim_reply(request, 200, sim_pod_json(pod, now));
	}
}
