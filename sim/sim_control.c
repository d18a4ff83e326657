/*
 * sim_control.c
 *	  The interface for tests below /_sim/: the clock, pods of others, the balance, the key.
 *
 * These calls stand for what happens at the provider without the client: they need no key, no fault
 * applies to them, and the ledger does not count them as requests. Rules, stock and ledger are
 * served by the files that own them.
 */
#include <fnmatch.h>
#include <string.h>

#include "sim.h"

/* GET /_sim/clock. */
void
sim_clock_get(SimRequest *request)
{
	sim_reply(request, 200, json_pack("{s:f, s:f}", "now", sim_now(), "advanced", sim.advanced));
}

/* POST /_sim/clock {"advance": seconds}. */
void
sim_clock_post(SimRequest *request)
{
	double seconds = -1;

	if (json_unpack(request->json, "{s:F}", "advance", &seconds) != 0 ||
		!(seconds >= 0 && seconds < 1e9))
	{
		sim_fail(request, 400, "\"advance\" must be a number of seconds that is not negative",
				 NULL);
		return;
	}
	sim.advanced += seconds;
	sim_pods_tick(sim_now());
	sim_clock_get(request);
}

/* GET /_sim/pods: what the provider alone knows of each pod. */
void
sim_control_pods_get(SimRequest *request)
{
	double now = sim_now();
	json_t *list = json_array();

	for (int i = 0; i < sim.n_pods; i++)
	{
		const SimPod *pod = sim.pods[i];

		json_array_append_new(list,
							  json_pack("{s:s, s:O, s:s, s:b, s:b, s:i, s:i, s:i, s:s}", "id",
										pod->id, "name", json_object_get(pod->spec, "name"),
										"status", sim_pod_status(pod, now), "live",
										pod->deleted_at == 0, "foreign", pod->foreign, "pid",
										(int) sim_group_pid(pod->group), "runs", pod->runs,
										"starts", pod->starts, "api_key", pod->api_key));
	}
	sim_reply(request, 200, json_pack("{s:o}", "pods", list));
}

/* Make a pod of someone else, if a name is given, and add its id to ids. */
static void
make_pod(json_t *wanted, const char *name, bool member, json_t *ids)
{
	SimPod *made = name == NULL ? NULL : sim_foreign_pod(wanted, name);

	if (made == NULL)
		return;
	made->member = member;
	json_array_append_new(ids, json_string(made->id));
}

/*
 * POST /_sim/pods: {"foreign": name} makes a pod of someone else, {"foreign": [name, ...]} one of each
 * name, {"member": name} one that belongs to a cluster; {"vanish": id}, {"exit": id} and {"fail": id} end or halt live pods without a call,
 * id being a pattern.
 */
void
sim_control_pods_post(SimRequest *request)
{
	static const char *const verbs[] = { "vanish", "exit", "fail" };
	const char *member = json_string_value(json_object_get(request->json, "member"));
	json_t *foreign = json_object_get(request->json, "foreign");
	const char *pattern = NULL;
	size_t verb = 0;
	double now = sim_now();
	json_t *ids = json_array();

	if (member != NULL)
		make_pod(request->json, member, true, ids);
	else if (json_is_array(foreign))
		for (size_t i = 0; i < json_array_size(foreign); i++)
			make_pod(request->json, json_string_value(json_array_get(foreign, i)), false, ids);
	else
		make_pod(request->json, json_string_value(foreign), false, ids);
	while (verb < 3 &&
		   (pattern = json_string_value(json_object_get(request->json, verbs[verb]))) == NULL)
		verb++;
	for (int i = 0; pattern != NULL && i < sim.n_pods; i++)
	{
		SimPod *pod = sim.pods[i];

		if (pod->deleted_at != 0 || fnmatch(pattern, pod->id, 0) != 0)
			continue;
		if (verb == 0)
			sim_pod_end(pod, now, "vanish");
		else
			sim_pod_halt(pod, now, verb == 1 ? "EXITED" : "ERROR");
		json_array_append_new(ids, json_string(pod->id));
	}
	if (json_array_size(ids) > 0)
	{
		sim_reply(request, 200, json_pack("{s:O, s:o}", "id", json_array_get(ids, 0), "pods", ids));
		return;
	}
	json_decref(ids);
	sim_fail(
		request, 400,
		"\"vanish\", \"exit\" or \"fail\" must name a live pod, or \"foreign\" or \"member\" a new one",
		NULL);
}

/* GET /_sim/balance. */
void
sim_balance_get(SimRequest *request)
{
	sim_reply(request, 200,
			  json_pack("{s:f, s:f}", "balance", sim_balance(sim_now()), "spend_per_hour",
						sim_spend_per_hour()));
}

/* POST /_sim/balance {"balance": dollars}. */
void
sim_balance_post(SimRequest *request)
{
	double balance;

	if (json_unpack(request->json, "{s:F}", "balance", &balance) != 0)
	{
		sim_fail(request, 400, "\"balance\" must be a number of dollars", NULL);
		return;
	}
	sim_balance_set(balance);
	sim_balance_get(request);
}

/* POST /_sim/key: {"revoke": bool}, {"read_only": bool}, {"key": another}, which is not revoked. */
void
sim_key_post(SimRequest *request)
{
	const json_t *key = json_object_get(request->json, "key");
	const json_t *revoke = json_object_get(request->json, "revoke");
	const json_t *read_only = json_object_get(request->json, "read_only");

	if (!json_is_string(key) && !json_is_boolean(revoke) && !json_is_boolean(read_only))
	{
		sim_fail(request, 400, "\"revoke\", \"read_only\" or \"key\" must be given", NULL);
		return;
	}
	if (json_is_string(key))
	{
		free(sim.api_key);
		sim.api_key = strdup(json_string_value(key));
		sim.revoked = false;
	}
	if (json_is_boolean(revoke))
		sim.revoked = json_is_true(revoke);
	if (json_is_boolean(read_only))
		sim.read_only = json_is_true(read_only);
	sim_reply(request, 200,
			  json_pack("{s:b, s:b}", "revoked", sim.revoked, "read_only", sim.read_only));
}

/* POST /_sim/refuse {"seconds": s}: when this is answered, the port is closed for that long. */
void
sim_refuse_post(SimRequest *request)
{
	double seconds = 0;

	if (json_unpack(request->json, "{s:F}", "seconds", &seconds) != 0 || !(seconds > 0))
	{
		sim_fail(request, 400, "\"seconds\" must be a positive number", NULL);
		return;
	}
	request->refuse = seconds;
	sim_reply(request, 200, json_pack("{s:f}", "seconds", seconds));
}
