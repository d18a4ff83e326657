/*
 * sim_v1.c
 *	  REST v1, the API before: retired, or in the forms that were last seen of it.
 *
 * A create is turned into one of v2. Other names, bare arrays, errors without a title, and 500 for
 * most of what a user does wrong.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sim.h"

/* The properties of a create that mean the same in v2, and those that are read elsewhere (NULL). */
static const char *const fields[][2] = {
	{ "name", "name" },
	{ "imageName", "image" },
	{ "env", "env" },
	{ "ports", "ports" },
	{ "cloudType", "cloud" },
	{ "dataCenterIds", "dataCenterIds" },
	{ "containerDiskInGb", "disk" },
	{ "templateId", "templateId" },
	{ "globalNetworking", "globalNetworking" },
	{ "gpuTypeIds", NULL },
	{ "gpuCount", NULL },
	{ "interruptible", NULL },
	{ NULL, NULL },
};

/* Is it a request to this API? */
bool
sim_v1_is(const SimRequest *request)
{
	return strcmp(request->path, "/v1") == 0 || strncmp(request->path, "/v1/", 4) == 0;
}

/* Bring an answer into the form of this API: its errors, and no quotas. */
void
sim_v1_answer(SimRequest *request)
{
	json_t *detail = json_object_get(request->answer, "detail");

	request->rate_limit[0] = request->rate_policy[0] = '\0';
	if (request->status < 400 || detail == NULL)
		return;
	sim_reply(request, request->status,
			  json_pack("{s:O, s:i}", "error", detail, "status", request->status));
	request->content_type = "application/json";
}

/* A time as Go prints it. New reference. */
static json_t *
time_json(double time)
{
	time_t seconds = (time_t) floor(time);
	struct tm parts;
	char text[40];

	gmtime_r(&seconds, &parts);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
	return json_sprintf("%s.%03d +0000 UTC", text, (int) ((time - floor(time)) * 1000));
}

/* A pod. New reference. */
static json_t *
pod_json(const SimPod *pod)
{
	const char *halted = pod->halted != NULL ? "EXITED" : "RUNNING";
	json_t *json = json_pack("{s:s, s:s, s:i, s:f, s:{}, s:s, s:b, s:b, s:o, s:o}", "id", pod->id,
							 "desiredStatus", halted, "gpuCount", pod->gpu_count, "costPerHr",
							 pod->cost, "machine", "templateId", "", "interruptible", 0, "locked",
							 pod->locked, "createdAt", time_json(pod->created_at), "lastStartedAt",
							 time_json(pod->started_at));

	json_object_set(json, "name", json_object_get(pod->spec, "name"));
	json_object_set(json, "imageName", json_object_get(pod->spec, "image"));
	json_object_set(json, "env", json_object_get(pod->spec, "env"));
	json_object_set(json, "ports", json_object_get(pod->spec, "ports"));
	json_object_set(json, "containerDiskInGb", json_object_get(pod->spec, "disk"));
	return json;
}

/* The wish of v2 that a body means. New reference, or NULL with the request answered. */
static json_t *
translate(SimRequest *request)
{
	json_t *types = json_object_get(request->json, "gpuTypeIds");
	json_t *count = json_object_get(request->json, "gpuCount");
	json_t *wish = json_pack("{s:s, s:{s:s, s:i}}", "name", "my pod", "gpu", "id",
							 "NVIDIA GeForce RTX 4090", "count", 1);
	const char *key;
	json_t *value;

	/* It tries the first type alone. */
	if (types != NULL)
		json_object_set(json_object_get(wish, "gpu"), "id", json_array_get(types, 0));
	if (count != NULL)
		json_object_set(json_object_get(wish, "gpu"), "count", count);
	json_object_foreach(request->json, key, value)
	{
		int f = 0;

		while (fields[f][0] != NULL && strcmp(fields[f][0], key) != 0)
			f++;
		if (fields[f][0] == NULL)
		{
			sim_fail(request, 400, "The body has an unknown property.", NULL);
			json_decref(wish);
			return NULL;
		}
		if (fields[f][1] != NULL)
			json_object_set(wish, fields[f][1], value);
	}
	return wish;
}

/* POST /v1/pods. */
void
sim_v1_create(SimRequest *request)
{
	json_t *detail;
	json_t *wish;

	if (!json_is_object(request->json))
	{
		sim_fail(request, 400, "The request body is not valid JSON.", NULL);
		return;
	}
	if (json_is_true(json_object_get(request->json, "interruptible")))
	{
		sim_fail(request, 500, "create pod: Spot pods are no longer offered", NULL);
		return;
	}
	wish = translate(request);
	if (wish == NULL)
		return;
	json_decref(request->json);
	request->json = wish;
	sim_pods_create(request);
	if (request->status == 201)
	{
		sim_reply(request, 201, pod_json(sim_pod_find(request->pod_id)));
		return;
	}
	detail = json_sprintf("create pod: %s",
						  json_string_value(json_object_get(request->answer, "detail")));
	sim_fail(request, 500, json_string_value(detail), NULL);
	json_decref(detail);
}

/* GET /v1/pods: a bare array of all. */
void
sim_v1_list(SimRequest *request)
{
	json_t *list = json_array();
	json_t *places;
	json_t *place;
	long last;
	size_t i;

	places = sim_list(request, sim.n_pods + 1, sim.n_pods, &last);
	json_array_foreach(places, i, place)
	{
		json_array_append_new(list, pod_json(sim.pods[json_integer_value(place)]));
	}
	json_decref(places);
	sim_reply(request, 200, list);
}

/* GET /v1/pods/{id}. */
void
sim_v1_get(SimRequest *request)
{
	const SimPod *pod = sim_named_pod(request);

	if (pod != NULL)
		sim_reply(request, 200, pod_json(pod));
}

/* DELETE /v1/pods/{id}. */
void
sim_v1_delete(SimRequest *request)
{
	SimPod *pod = sim_pod_find(request->segment);

	if (pod != NULL && pod->deleted_at == 0)
		sim_pod_delete(request, pod);
	else
		sim_fail(request, 404, "pod not found to terminate", NULL);
}
