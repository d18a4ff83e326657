/*
 * sim_faults.c
 *	  Faults: a table of actions, and the rules that apply them to requests.
 *
 * A rule says which requests it matches, what to do with them, and how often. Of the rules that
 * match a request, the first of each kind applies. A new fault is a row in the table and, unless
 * its kind is served by parameters alone, a question sim_fault_is() where the fault acts.
 *
 * Each rule draws from a stream of its own, so that a run with the same seed, the same rules and
 * the same order of requests repeats exactly.
 */
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define ANSWER_PARAMS "status title detail html retry_after rate_limit"

static const SimAction actions[] = {
	/* name, kind, takes effect, status, detail, parameters */
	{ "status", FAULT_ANSWER, false, 500, "Something went wrong.", ANSWER_PARAMS },
	{ "status_after", FAULT_ANSWER, true, 500, "Something went wrong.", ANSWER_PARAMS },
	{ "rate_limit", FAULT_ANSWER, false, 429, "rate limit exceeded for the minute window",
	  ANSWER_PARAMS },
	{ "no_capacity", FAULT_ANSWER, false, 400, NO_CAPACITY, ANSWER_PARAMS },
	{ "no_capacity_after", FAULT_ANSWER, true, 400, NO_CAPACITY, ANSWER_PARAMS },
	{ "no_balance", FAULT_ANSWER, false, 402, NO_BALANCE, ANSWER_PARAMS },
	{ "unauthorized", FAULT_ANSWER, false, 401, "missing bearer token", ANSWER_PARAMS },
	{ "forbidden", FAULT_ANSWER, false, 403, "access denied", ANSWER_PARAMS },
	{ "not_found", FAULT_ANSWER, false, 404, "resource not found", ANSWER_PARAMS },
	{ "bad_image", FAULT_ANSWER, false, 422, "The image was not found in its registry.",
	  ANSWER_PARAMS },

	{ "drop", FAULT_WIRE, false, 0, NULL, "" },
	{ "drop_after", FAULT_WIRE, true, 0, NULL, "" },
	{ "reset", FAULT_WIRE, false, 0, NULL, "" },
	{ "reset_after", FAULT_WIRE, true, 0, NULL, "" },
	{ "close_reused", FAULT_WIRE, true, 0, NULL, "" },
	{ "truncate", FAULT_WIRE, true, 0, NULL, "bytes" },
	{ "drip", FAULT_WIRE, true, 0, NULL, "bytes interval" },
	{ "stall", FAULT_WIRE, true, 0, NULL, "seconds" },

	{ "delay", FAULT_DELAY, true, 0, NULL, "seconds jitter" },
	{ "delay_before", FAULT_DELAY, false, 0, NULL, "seconds jitter" },

	{ "hide_new", FAULT_VIEW, true, 0, NULL, "seconds" },
	{ "show_deleted", FAULT_VIEW, true, 0, NULL, "seconds" },
	{ "empty_list", FAULT_VIEW, true, 0, NULL, "" },
	{ "partial_list", FAULT_VIEW, true, 0, NULL, "pods" },
	{ "overlap", FAULT_VIEW, true, 0, NULL, "pods" },

	{ "stuck", FAULT_POD, true, 0, NULL, "status" },
	{ "crash_loop", FAULT_POD, true, 0, NULL, "seconds" },
	{ "exit", FAULT_POD, true, 0, NULL, "seconds" },
	{ "fail", FAULT_POD, true, 0, NULL, "seconds" },
	{ "vanish", FAULT_POD, true, 0, NULL, "seconds" },
	{ "keep_pod", FAULT_POD, true, 0, NULL, "" },

	{ "alter", FAULT_ALTER, true, 0, NULL, "id set remove" },
};

/* What a rule may ask of a request. */
#define MATCH_KEYS "method path call gpu data_center cloud name image pod by reused cursor nth"
#define RULE_KEYS "name match action params probability count after for"

/* Write a reason and return NULL. */
static void *
refuse(char *error, size_t size, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsnprintf(error, size, format, values);
	va_end(values);
	return NULL;
}

/* The table's row of a name, or NULL. */
static const SimAction *
find_action(const char *name)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

/*
 * Bring a rule into the nested form: keys of "match" and "params" may stand in the rule itself.
 * New reference, or NULL with a reason.
 */
static json_t *
nest(const json_t *json, const SimAction *action, char *error, size_t size)
{
	json_t *nested = json_deep_copy(json);
	json_t *match = json_object_get(nested, "match");
	json_t *params = json_object_get(nested, "params");
	const char *bad = NULL;
	const char *key;
	json_t *value;

	if ((match != NULL && !json_is_object(match)) || (params != NULL && !json_is_object(params)))
		bad = "match or params, which are objects";
	if (match == NULL)
		json_object_set_new(nested, "match", match = json_object());
	if (params == NULL)
		json_object_set_new(nested, "params", params = json_object());
	json_object_foreach((json_t *) json, key, value)
	{
		if (sim_word_in(key, RULE_KEYS))
			continue;
		if (sim_word_in(key, action->params))
			json_object_set(params, key, value);
		else if (sim_word_in(key, MATCH_KEYS))
			json_object_set(match, key, value);
		else
			bad = key;
		json_object_del(nested, key);
	}
	json_object_foreach(match, key, value)
	{
		if (!sim_word_in(key, MATCH_KEYS))
			bad = key;
	}
	json_object_foreach(params, key, value)
	{
		if (!sim_word_in(key, action->params))
			bad = key;
	}
	if (strcmp(action->name, "close_reused") == 0)
		json_object_set_new(match, "reused", json_true());
	if (bad == NULL)
		return nested;
	refuse(error, size, "a rule with the action %s has no %s", action->name, bad);
	json_decref(nested);
	return NULL;
}

/* Switch a rule on. NULL with a reason if it is malformed. */
SimRule *
sim_fault_add(const json_t *json, char *error, size_t error_size)
{
	static unsigned added;
	const char *name = NULL;
	const char *action_name = NULL;
	double lasts = INFINITY;
	double probability = 1;
	json_int_t count = -1;
	json_int_t after = 0;
	json_error_t unpack_error;
	const SimAction *action;
	json_t *nested;
	SimRule *rule;

	if (json_unpack_ex((json_t *) json, &unpack_error, 0, "{s?s, s:s, s?F, s?I, s?I, s?F}", "name",
					   &name, "action", &action_name, "probability", &probability, "count", &count,
					   "after", &after, "for", &lasts) != 0)
		return refuse(error, error_size, "a rule is malformed: %s", unpack_error.text);
	action = find_action(action_name);
	if (action == NULL)
		return refuse(error, error_size, "there is no action %s", action_name);
	nested = nest(json, action, error, error_size);
	if (nested == NULL)
		return NULL;

	rule = sim_alloc(sizeof(SimRule));
	rule->name = strdup(name != NULL ? name : action_name);
	rule->action = action;
	rule->json = nested;
	rule->match = json_object_get(nested, "match");
	rule->params = json_object_get(nested, "params");
	rule->probability = probability;
	rule->count = (long) count;
	rule->after = (long) after;
	rule->until = sim_now() + lasts;
	sim_random_start(&rule->random, sim.seed + 7919 * ++added);
	TAILQ_INSERT_TAIL(&sim.rules, rule, link);
	return rule;
}

/* Switch on the rules of a file: an array, or an object with it under "add". */
bool
sim_fault_load(const char *file, char *error, size_t error_size)
{
	json_error_t load_error;
	json_t *json = json_load_file(file, 0, &load_error);
	const json_t *rules = json_is_object(json) ? json_object_get(json, "add") : json;
	json_t *rule;
	size_t i;

	error[0] = '\0';
	if (json == NULL)
		refuse(error, error_size, "%s: line %d: %s", file, load_error.line, load_error.text);
	else if (!json_is_array(rules))
		refuse(error, error_size, "%s: it holds no array of rules", file);
	json_array_foreach((json_t *) rules, i, rule)
	{
		if (sim_fault_add(rule, error, error_size) == NULL)
			break;
	}
	json_decref(json);
	return error[0] == '\0';
}

/* ---- applying rules ---- */

/*
 * What is known of a request, under the names that rules use. New reference. What is not known
 * (a list has no GPU) is not there, and no rule that asks for it matches.
 */
static json_t *
gather_facts(const SimRequest *request)
{
	const SimPod *pod = sim_pod_find(request->segment);
	const json_t *gpu = json_object_get(request->json, "gpu");
	const char *cursor =
		MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, "cursor");
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
	}
	else if (pod != NULL)
	{
		json_object_set_new(facts, "gpu", json_string(pod->gpu->id));
		json_object_set_new(facts, "data_center", json_string(pod->data_center->id));
		json_object_set_new(facts, "cloud", json_string(pod->community ? "COMMUNITY" : "SECURE"));
		json_object_set(facts, "name", json_object_get(pod->spec, "name"));
		json_object_set(facts, "image", json_object_get(pod->spec, "image"));
		json_object_set_new(facts, "pod", json_string(pod->id));
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
	if (rule->seen <= rule->after || (nth > 0 && rule->seen != nth))
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

/* A number among a rule's parameters. */
double
sim_fault_number(const SimRule *rule, const char *param, double otherwise)
{
	const json_t *value = json_object_get(rule->params, param);

	return json_is_number(value) ? json_number_value(value) : otherwise;
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

/* Seconds to hold a request back, before it takes effect or after. */
double
sim_fault_delay(const SimRequest *request, bool after)
{
	SimRule *rule = request->faults[FAULT_DELAY];

	if (rule == NULL || rule->action->after != after)
		return 0;
	return sim_fault_number(rule, "seconds", 1) +
		sim_random_fraction(&rule->random) * sim_fault_number(rule, "jitter", 0);
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
	status = (int) sim_fault_number(rule, "status", rule->action->status);
	detail = json_string_value(json_object_get(rule->params, "detail"));
	title = json_object_get(rule->params, "title");
	sim_fail(request, status, detail != NULL ? detail : rule->action->detail, NULL);
	if (title != NULL)
		json_object_set(request->answer, "title", (json_t *) title);
	if (json_is_true(json_object_get(rule->params, "html")))
		request->content_type = "text/html";

	retry_after = json_object_get(rule->params, "retry_after");
	if (json_is_string(retry_after))
		snprintf(request->retry_after, sizeof(request->retry_after), "%s",
				 json_string_value(retry_after));
	else if (json_is_number(retry_after) || (status == 429 && retry_after == NULL))
		snprintf(request->retry_after, sizeof(request->retry_after), "%d",
				 (int) sim_fault_number(rule, "retry_after", 1));
	rate_limit = json_string_value(json_object_get(rule->params, "rate_limit"));
	if (rate_limit != NULL)
		snprintf(request->rate_limit, sizeof(request->rate_limit), "%s", rate_limit);
	else if (status == 429)
		snprintf(request->rate_limit, sizeof(request->rate_limit), "\"minute\";r=0;t=%d",
				 (int) sim_fault_number(rule, "retry_after", 1));
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

/* ---- the interface for tests ---- */

/* GET /_sim/faults: the rules with what they saw and did. */
void
sim_faults_get(SimRequest *request)
{
	json_t *list = json_array();
	SimRule *rule;

	TAILQ_FOREACH(rule, &sim.rules, link)
	{
		json_t *json = json_copy(rule->json);

		json_object_set_new(json, "name", json_string(rule->name));
		json_object_set_new(json, "seen", json_integer(rule->seen));
		json_object_set_new(json, "hits", json_integer(rule->hits));
		json_array_append_new(list, json);
	}
	sim_reply(request, 200, json_pack("{s:o}", "faults", list));
}

/* Switch a rule off, also for the requests that are held back. */
void
sim_fault_drop(SimRule *rule)
{
	SimRequest *held;

	TAILQ_FOREACH(held, &sim.held, link)
	{
		if (held->faults[rule->action->kind] == rule)
			held->faults[rule->action->kind] = NULL;
	}
	TAILQ_REMOVE(&sim.rules, rule, link);
	json_decref(rule->json);
	free(rule->name);
	free(rule);
}

/* Is a rule's name one of these? */
static bool
is_named(const SimRule *rule, const json_t *names)
{
	json_t *name;
	size_t i;

	json_array_foreach((json_t *) names, i, name)
	{
		if (json_is_string(name) && strcmp(json_string_value(name), rule->name) == 0)
			return true;
	}
	return false;
}

/* POST /_sim/faults {"add": [rule], "clear": true or [name]}: clears first. All rules or none. */
void
sim_faults_post(SimRequest *request)
{
	const json_t *clear = json_object_get(request->json, "clear");
	const json_t *add = json_object_get(request->json, "add");
	SimRule *last = TAILQ_LAST(&sim.rules, SimRuleList);
	char error[256] = "";
	json_t *json;
	size_t i;
	SimRule *rule;
	SimRule *next;

	if (!json_is_object(request->json) || (add != NULL && !json_is_array(add)))
	{
		sim_fail(request, 400, "the body must be an object with \"add\", \"clear\" or both", NULL);
		return;
	}
	json_array_foreach((json_t *) add, i, json)
	{
		if (sim_fault_add(json, error, sizeof(error)) == NULL)
			break;
	}
	if (error[0] != '\0')
	{
		while ((rule = TAILQ_LAST(&sim.rules, SimRuleList)) != last)
			sim_fault_drop(rule);
		sim_fail(request, 400, error, NULL);
		return;
	}
	for (rule = last != NULL ? TAILQ_FIRST(&sim.rules) : NULL; rule != NULL; rule = next)
	{
		next = rule == last ? NULL : TAILQ_NEXT(rule, link);
		if (json_is_true(clear) || is_named(rule, clear))
			sim_fault_drop(rule);
	}
	sim_faults_get(request);
}
