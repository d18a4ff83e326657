/*
 * sim_rules.c
 *	  Rules of faults: the table of actions, and how rules come and go.
 *
 * A rule says which requests it matches, what to do with them, and how often. A new fault is a row
 * in the table and, unless its kind is served by parameters alone, a question sim_fault_is() where
 * the fault acts.
 */
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

	{ "host_taken", FAULT_ANSWER, false, 400,
	  "There are not enough free GPUs on the host machine to start this pod.", ANSWER_PARAMS },

	{ "drop", FAULT_WIRE, false, 0, NULL, "" },
	{ "drop_after", FAULT_WIRE, true, 0, NULL, "" },
	{ "reset", FAULT_WIRE, false, 0, NULL, "" },
	{ "reset_after", FAULT_WIRE, true, 0, NULL, "" },
	{ "close_reused", FAULT_WIRE, true, 0, NULL, "" },
	{ "truncate", FAULT_WIRE, true, 0, NULL, "bytes" },
	{ "drip", FAULT_WIRE, true, 0, NULL, "bytes interval" },
	{ "stall", FAULT_WIRE, true, 0, NULL, "seconds" },

	{ "later", FAULT_EFFECT, true, 0, NULL, "seconds jitter" },

	{ "delay", FAULT_DELAY, true, 0, NULL, "seconds jitter" },
	{ "delay_before", FAULT_DELAY, false, 0, NULL, "seconds jitter" },

	{ "hide_new", FAULT_VIEW, true, 0, NULL, "seconds" },
	{ "show_deleted", FAULT_VIEW, true, 0, NULL, "seconds" },
	{ "late_list", FAULT_VIEW, true, 0, NULL, "seconds" },
	{ "empty_list", FAULT_VIEW, true, 0, NULL, "" },
	{ "partial_list", FAULT_VIEW, true, 0, NULL, "pods" },
	{ "patchy_list", FAULT_VIEW, true, 0, NULL, "missing" },
	{ "overlap", FAULT_VIEW, true, 0, NULL, "pods" },

	{ "slow_boot", FAULT_POD, true, 0, NULL, "seconds" },
	{ "stuck", FAULT_POD, true, 0, NULL, "status" },
	{ "crash_loop", FAULT_POD, true, 0, NULL, "seconds" },
	{ "exit", FAULT_POD, true, 0, NULL, "seconds" },
	{ "fail", FAULT_POD, true, 0, NULL, "seconds" },
	{ "vanish", FAULT_POD, true, 0, NULL, "seconds" },
	{ "no_gpus", FAULT_POD, true, 0, NULL, "" },
	{ "no_ip", FAULT_POD, true, 0, NULL, "" },
	{ "stale_ports", FAULT_POD, true, 0, NULL, "seconds" },
	{ "keep_pod", FAULT_POD, true, 0, NULL, "" },

	{ "alter", FAULT_ALTER, true, 0, NULL, "id set remove" },

	{ "malformed", FAULT_BODY, true, 0, NULL, "body" },
	{ "huge", FAULT_BODY, true, 0, NULL, "bytes" },
	{ "deep", FAULT_BODY, true, 0, NULL, "levels" },
};

/* What a rule may ask of a request. */
#define MATCH_KEYS "method path call gpu data_center cloud name image pool pod by reused cursor nth"
#define RULE_KEYS "name match action params probability count skip seed for"

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
sim_rule_add(const json_t *json, char *error, size_t error_size)
{
	static unsigned added;
	const char *name = NULL;
	const char *action_name = NULL;
	double lasts = INFINITY;
	double probability = 1;
	json_int_t count = -1;
	json_int_t skip = 0;
	json_int_t seed = -1;
	json_error_t unpack_error;
	const SimAction *action;
	json_t *nested;
	SimRule *rule;

	if (json_unpack_ex((json_t *) json, &unpack_error, 0, "{s?s, s:s, s?F, s?I, s?I, s?I, s?F}",
					   "name", &name, "action", &action_name, "probability", &probability, "count",
					   &count, "skip", &skip, "seed", &seed, "for", &lasts) != 0)
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
	rule->skip = (long) skip;
	rule->until = sim_now() + lasts;
	added++;
	sim_random_start(&rule->random, seed >= 0 ? (unsigned) seed : sim.seed + 7919 * added);
	TAILQ_INSERT_TAIL(&sim.rules, rule, link);
	return rule;
}

/* Switch on the rules of a file: an array, or an object with it under "add". */
bool
sim_rule_load(const char *file, char *error, size_t error_size)
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
		if (sim_rule_add(rule, error, error_size) == NULL)
			break;
	}
	json_decref(json);
	return error[0] == '\0';
}

/* A number among a rule's parameters. */
double
sim_rule_number(const SimRule *rule, const char *param, double otherwise)
{
	const json_t *value = json_object_get(rule->params, param);

	return json_is_number(value) ? json_number_value(value) : otherwise;
}

/* ---- the interface for tests ---- */

/* GET /_sim/faults: the rules with what they saw and did. */
void
sim_rules_get(SimRequest *request)
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

/* Take a rule away from the requests of a list. */
static void
forget(const SimRule *rule, struct SimRequestList *list)
{
	SimRequest *request;

	TAILQ_FOREACH(request, list, link)
	{
		if (request->faults[rule->action->kind] == rule)
			request->faults[rule->action->kind] = NULL;
	}
}

/* Switch a rule off, also for the requests that are held back or take effect later. */
void
sim_rule_drop(SimRule *rule)
{
	forget(rule, &sim.held);
	forget(rule, &sim.later);
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
sim_rules_post(SimRequest *request)
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
		if (sim_rule_add(json, error, sizeof(error)) == NULL)
			break;
	}
	if (error[0] != '\0')
	{
		while ((rule = TAILQ_LAST(&sim.rules, SimRuleList)) != last)
			sim_rule_drop(rule);
		sim_fail(request, 400, error, NULL);
		return;
	}
	for (rule = last != NULL ? TAILQ_FIRST(&sim.rules) : NULL; rule != NULL; rule = next)
	{
		next = rule == last ? NULL : TAILQ_NEXT(rule, link);
		if (json_is_true(clear) || is_named(rule, clear))
			sim_rule_drop(rule);
	}
	sim_rules_get(request);
}
