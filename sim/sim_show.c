/*
 * sim_show.c
 *	  A pod as REST v2 shows it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* What may be done with a pod of this status. New reference. */
json_t *
sim_pod_actions(const char *status)
{
	if (strcmp(status, "RUNNING") == 0)
		return json_pack("[s, s, s]", "stop", "restart", "terminate");
	if (strcmp(status, "PROVISIONING") == 0 || strcmp(status, "STARTING") == 0)
		return json_pack("[s, s]", "stop", "terminate");
	return json_pack("[s, s]", "start", "terminate");
}

/* How many GPUs a pod shows. */
static int
gpu_count(const SimPod *pod)
{
	return pod->no_gpus ? 0 : pod->gpu_count;
}

/* Are the pod's ports known outside? */
static bool
is_mapped(const SimPod *pod, double now)
{
	return sim_pod_runs(pod, now) && now >= sim_pod_booted_at(pod) + sim.port_seconds;
}

/* The public number of the pod's n-th port; another one after each start, or a while later. */
static int
public_port(const SimPod *pod, size_t n, double now)
{
	bool is_stale = now < sim_pod_booted_at(pod) + pod->stale_seconds;

	return 20000 + (int) ((pod->seq * 97 + (pod->starts - is_stale) * 31 + (long) n) % 40000);
}

/* The pod's ports with an http entry that nobody asked for. New reference. */
static json_t *
ports_json(const SimPod *pod, double now)
{
	bool mapped = is_mapped(pod, now);
	const char *ip = pod->no_ip ? NULL : "127.0.0.1";
	json_t *list = json_array();
	json_t *port;
	size_t i;

	json_array_foreach(json_object_get(pod->spec, "ports"), i, port)
	{
		char *rest;
		int number = (int) strtol(json_string_value(port), &rest, 10);
		json_t *public = mapped ? json_integer(public_port(pod, i, now)) : json_null();

		json_array_append_new(list,
							  json_pack("{s:s?, s:i, s:o, s:s}", "ip", mapped ? ip : NULL,
										"private", number, "public", public, "type",
										strcmp(rest, "/tcp") == 0 ? "tcp" : "http"));
	}
	json_array_append_new(list,
						  json_pack("{s:s?, s:i, s:i, s:s}", "ip", ip, "private", 19123, "public",
									public_port(pod, i, now), "type", "http"));
	return list;
}

/* What the container reports; null until it has booted. New reference. */
static json_t *
runtime_json(const SimPod *pod, double now)
{
	double up = now - sim_pod_container_start(pod, now);
	json_t *gpus;

	if (!sim_pod_runs(pod, now))
		return json_null();
	gpus = json_array();
	for (int i = 0; i < gpu_count(pod); i++)
		json_array_append_new(gpus, json_pack("{s:i, s:i}", "util", 0, "memoryUtil", 0));
	return json_pack("{s:i, s:o, s:{s:i}, s:{s:i}, s:o}", "uptime", up > 0 ? (int) up : 0, "gpus",
					 gpus, "cpu", "util", 0, "memory", "util", 0, "ports", ports_json(pod, now));
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
		int number = public_port(pod, i, now);

		if (strcmp(json_string_value(port), "22/tcp") != 0 || pod->no_ip || !is_mapped(pod, now))
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
	bool is_free = !sim.exited_costs && strcmp(status, "EXITED") == 0;
	json_t *json = json_pack("{s:s, s:s, s:o}", "id", pod->id, "status", status, "actions",
							 sim_pod_actions(status));

	json_object_update(json, pod->spec);
	json_object_set_new(
		json, "globalNetworking",
		json_pack("{s:O}", "enabled", json_object_get(pod->spec, "globalNetworking")));
	json_object_set_new(json, "gpu",
						json_pack("{s:s, s:i, s:i, s:i}", "id", pod->gpu->id, "count",
								  gpu_count(pod), "vcpuCount", 8 * pod->gpu_count, "memory",
								  32 * pod->gpu_count));
	json_object_set_new(json, "cloud", json_string(pod->community ? "COMMUNITY" : "SECURE"));
	json_object_set_new(json, "dataCenterId", json_string(pod->data_center->id));
	json_object_set_new(json, "cudaVersion", json_string(pod->cuda));
	json_object_set_new(json, "ssh", ssh_json(pod, now));
	json_object_set_new(json, "template", json_null());
	json_object_set_new(json, "cost", json_real(is_free ? 0 : pod->cost));
	json_object_set_new(json, "locked", json_boolean(pod->locked));
	json_object_set_new(json, "runtime", runtime_json(pod, now));
	json_object_set_new(json, "createdAt", sim_time_json(pod->created_at));
	json_object_set_new(json, "startedAt", sim_time_json(pod->started_at));
	if (pod->member)
		json_object_set_new(json, "cluster",
							json_pack("{s:s, s:i}", "id", "simcluster", "rank", 0));
	return json;
}
