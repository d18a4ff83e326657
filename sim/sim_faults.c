/*
 * sim_faults.c
 *	  Faults: which rules apply to a request, and what they do to it.
 *
 * Of the rules that match a request, the first of each kind applies. Each rule draws from a stream
 * of its own, so that a run with the same seed, the same rules and the same order of requests
 * repeats exactly.
 */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define HUGE_BYTES (17.0 * 1024 * 1024)
#define DEEP_LEVELS 100000.0
#define BAD_BODY "{\"pods\": [{\"id\": \"\xff\xfe\", }"

/* ---- which rules apply ---- */

/*
 * What is known of a request, under the names that rules use. New reference. What is not known
 * (a list has no GPU) is not there, and no rule that asks for it matches.
 */
static json_t *
gather_facts(const SimRequest *request)
{
	const SimPod *pod = sim_pod_find(request->segment);
	const json_t *gpu = json_object_get(request->json, "gpu");
	const char *cursor = sim_query(request, "cursor");
	const json_t *env;
	json_t *facts = json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "method", request->method, "path",
							  request->path, "call", request->route->call, "by",
							  request->key_pod != NULL ? "pod" : "account", "reused",
							  request->reused, "cursor", cursor != NULL);

	if (strcmp(request->route->call, "create") == 0 && json_is_object(request->json))
	{
		json_t *cloud = json_object_get(request->json, "cloud");

		json_object_set(facts, "gpu", json_object_get(gpu, "id"));
		json_object_set(facts, "data_center", json_object_get(request->json, "dataCenterIds"));
		json_object_set_new(facts, "cloud",
							cloud != NULL ? json_incref(cloud) : json_string("SECURE"));
		json_object_set(facts, "name", json_object_get(request->json, "name"));
		json_object_set(facts, "image", json_object_get(request->json, "image"));
		env = json_object_get(request->json, "env");
		json_object_set(facts, "pool", json_object_get(env, "GPU_ORCH_POOL"));
	}
	else if (pod != NULL)
	{
		json_object_set_new(facts, "gpu", json_string(pod->gpu->id));
		json_object_set_new(facts, "data_center", json_string(pod->data_center->id));
		json_object_set_new(facts, "cloud", json_string(pod->community ? "COMMUNITY" : "SECURE"));
		json_object_set(facts, "name", json_object_get(pod->spec, "name"));
		json_object_set(facts, "image", json_object_get(pod->spec, "image"));
		json_object_set_new(facts, "pod", json_string(pod->id));
		env = json_object_get(pod->spec, "env");
		json_object_set(facts, "pool", json_object_get(env, "GPU_ORCH_POOL"));
	}
	return facts;
}

/* Does a fact (a text, a flag, or an array of texts of which one suffices) fit what a rule asks? */
static bool
fits(const json_t *asked, const json_t *fact)
{
	json_t *element;
	size_t i;

	json_array_foreach((json_t *) fact, i, element)
	{
		if (fits(asked, element))
			return true;
	}
	if (json_is_string(asked) && json_is_string(fact))
		return strcmp(json_string_value(asked), json_string_value(fact)) == 0 ||
			fnmatch(json_string_value(asked), json_string_value(fact), 0) == 0;
	return json_equal(asked, fact);
}

/* Does a rule apply to a request? Counts what it sees, and draws if it is left to chance. */
static bool
applies(SimRule *rule, const json_t *facts, double now)
{
	json_int_t nth = json_integer_value(json_object_get(rule->match, "nth"));
	const char *key;
	json_t *asked;

	if (now >= rule->until)
		return false;
	json_object_foreach(rule->match, key, asked)
	{
		if (strcmp(key, "nth") != 0 && !fits(asked, json_object_get(facts, key)))
			return false;
	}
	rule->seen++;
	if (rule->seen <= rule->skip || (nth > 0 && rule->seen != nth))
		return false;
	if (rule->count >= 0 && rule->hits >= rule->count)
		return false;
	if (rule->probability < 1 && sim_random_fraction(&rule->random) >= rule->probability)
		return false;
	rule->hits++;
	return true;
}

/* Choose the faults of a request, the first of each kind. */
void
sim_fault_plan(SimRequest *request)
{
	json_t *facts;
	double now = sim_now();
	SimRule *rule;

	if (TAILQ_EMPTY(&sim.rules))
		return;
	facts = gather_facts(request);
	TAILQ_FOREACH(rule, &sim.rules, link)
	{
		SimRule **place = &request->faults[rule->action->kind];

		if (*place == NULL && applies(rule, facts, now))
			*place = rule;
	}
	json_decref(facts);
}

/* Is this the fault of that kind that was chosen for the request? */
bool
sim_fault_is(const SimRequest *request, SimFaultKind kind, const char *action)
{
	return request->faults[kind] != NULL &&
		strcmp(request->faults[kind]->action->name, action) == 0;
}

/* For how many seconds a fault acts; 0 if it was not chosen for the request. */
double
sim_fault_seconds(const SimRequest *request, SimFaultKind kind, const char *action)
{
	return sim_fault_is(request, kind, action) ?
		sim_rule_number(request->faults[kind], "seconds", 5) :
		0;
}

/* The word for the ledger: the gravest fault of the request, or NULL. */
const char *
sim_fault_name(const SimRequest *request)
{
	for (int kind = 0; kind < N_FAULT_KINDS; kind++)
		if (request->faults[kind] != NULL)
			return request->faults[kind]->action->name;
	return NULL;
}

/* ---- what they do ---- */

/* Seconds to hold a request back, before it takes effect or after. */
double
sim_fault_delay(const SimRequest *request, bool after)
{
	SimRule *rule = request->faults[FAULT_DELAY];

	if (rule == NULL || rule->action->after != after)
		return 0;
	return sim_rule_number(rule, "seconds", 1) +
		sim_random_fraction(&rule->random) * sim_rule_number(rule, "jitter", 0);
}

/* Give the answer that a rule wants, if it wants one at this moment. */
bool
sim_fault_answer(SimRequest *request, bool after)
{
	const SimRule *rule = request->faults[FAULT_ANSWER];
	const json_t *retry_after;
	const json_t *title;
	const char *detail;
	const char *rate_limit;
	int status;

	if (rule == NULL || rule->action->after != after)
		return false;
	status = (int) sim_rule_number(rule, "status", rule->action->status);
	detail = json_string_value(json_object_get(rule->params, "detail"));
	title = json_object_get(rule->params, "title");
	sim_fail(request, status, detail != NULL ? detail : rule->action->detail, NULL);
	if (status == 204)
		sim_reply(request, status, NULL);
	if (title != NULL)
		json_object_set(request->answer, "title", (json_t *) title);
	if (status != 204 && json_is_true(json_object_get(rule->params, "html")))
		request->content_type = "text/html";

	retry_after = json_object_get(rule->params, "retry_after");
	if (json_is_string(retry_after))
		snprintf(request->retry_after, sizeof(request->retry_after), "%s",
				 json_string_value(retry_after));
	else if (json_is_number(retry_after) || (status == 429 && retry_after == NULL))
		snprintf(request->retry_after, sizeof(request->retry_after), "%d",
				 (int) sim_rule_number(rule, "retry_after", 1));
	rate_limit = json_string_value(json_object_get(rule->params, "rate_limit"));
	if (rate_limit != NULL)
		snprintf(request->rate_limit, sizeof(request->rate_limit), "%s", rate_limit);
	else if (status == 429)
		snprintf(request->rate_limit, sizeof(request->rate_limit), "\"minute\";r=0;t=%d",
				 (int) sim_rule_number(rule, "retry_after", 1));
	return true;
}

/* Set and remove values of one object of an answer. */
static void
alter_object(const SimRule *rule, json_t *object)
{
	const json_t *id = json_object_get(rule->params, "id");
	json_t *key;
	size_t i;

	if (id != NULL && !json_equal(id, json_object_get(object, "id")))
		return;
	json_object_update(object, json_object_get(rule->params, "set"));
	json_array_foreach(json_object_get(rule->params, "remove"), i, key)
	{
		json_object_del(object, json_string_value(key));
	}
}

/* Alter the answer as a rule wants: the object itself if it has an id, or each in its arrays. */
void
sim_fault_alter(SimRequest *request)
{
	const SimRule *rule = request->faults[FAULT_ALTER];
	const char *key;
	json_t *part;
	json_t *object;
	size_t i;

	if (rule == NULL || request->status >= 300)
		return;
	if (json_object_get(request->answer, "id") != NULL)
	{
		alter_object(rule, request->answer);
		return;
	}
	json_object_foreach(request->answer, key, part)
	{
		json_array_foreach(part, i, object)
		{
			alter_object(rule, object);
		}
	}
}

/* Let a rule decide what becomes of a pod that is made or started. */
void
sim_fault_pod(const SimRequest *request, SimPod *pod)
{
	const SimRule *rule = request->faults[FAULT_POD];
	double seconds = rule != NULL ? sim_rule_number(rule, "seconds", 0) : 0;
	const char *status;

	if (sim_fault_is(request, FAULT_POD, "stuck"))
	{
		status = json_string_value(json_object_get(rule->params, "status"));
		pod->stuck_status =
			status != NULL && strcmp(status, "RUNNING") == 0 ? "RUNNING" : "PROVISIONING";
	}
	else if (sim_fault_is(request, FAULT_POD, "crash_loop"))
		pod->crash_every = sim_rule_number(rule, "seconds", 1);
	else if (sim_fault_is(request, FAULT_POD, "slow_boot"))
		pod->boot_seconds = sim_rule_number(rule, "seconds", 600);
	else if (sim_fault_is(request, FAULT_POD, "vanish"))
		pod->vanish_at = pod->started_at + seconds;
	else if (sim_fault_is(request, FAULT_POD, "exit") || sim_fault_is(request, FAULT_POD, "fail"))
	{
		pod->halt_as = sim_fault_is(request, FAULT_POD, "exit") ? "EXITED" : "ERROR";
		pod->halt_at = pod->started_at + seconds;
	}
	else if (sim_fault_is(request, FAULT_POD, "no_gpus"))
		pod->no_gpus = true;
	else if (sim_fault_is(request, FAULT_POD, "no_ip"))
		pod->no_ip = true;
	else if (sim_fault_is(request, FAULT_POD, "stale_ports"))
		pod->stale_seconds = sim_rule_number(rule, "seconds", 90);
}

/* A text of n letters, followed by as many of the other unless that is zero. The caller frees it. */
static char *
letters(char one, char other, size_t n)
{
	char *text = sim_alloc(2 * n + 1);

	memset(text, one, n);
	memset(text + n, other, n);
	return text;
}

/* Make the text of the answer what a rule wants: no JSON, or a key more that is hard to digest. */
void
sim_fault_body(SimRequest *request)
{
	const SimRule *rule = request->faults[FAULT_BODY];
	const json_t *body = rule != NULL ? json_object_get(rule->params, "body") : NULL;
	char *text = NULL;
	char *fill;

	if (rule == NULL || request->payload == NULL)
		return;
	if (sim_fault_is(request, FAULT_BODY, "malformed"))
		text = body == NULL		 ? strdup(BAD_BODY) :
			json_is_string(body) ? strdup(json_string_value(body)) :
								   json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
	else if (request->payload[0] == '{')
	{
		bool is_deep = sim_fault_is(request, FAULT_BODY, "deep");
		const char *comma = strcmp(request->payload, "{}") == 0 ? "" : ",";

		fill = is_deep ? letters('[', ']', (size_t) sim_rule_number(rule, "levels", DEEP_LEVELS)) :
						 letters('x', '\0', (size_t) sim_rule_number(rule, "bytes", HUGE_BYTES));
		if (asprintf(&text, is_deep ? "{\"nested\":%s%s%s" : "{\"padding\":\"%s\"%s%s", fill, comma,
					 request->payload + 1) < 0)
			abort();
		free(fill);
	}
	if (text == NULL)
		return;
	free(request->payload);
	request->payload = text;
}
