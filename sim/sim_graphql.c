/*
 * sim_graphql.c
 *	  GraphQL, of which clients still need the balance: myself, and two mutations on pods.
 *
 * Reads no grammar: it looks for the words of a query, and for arguments among the variables or as
 * literals in the text. What a user does wrong is answered with 200 and errors.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* Answer a query that is not served here. */
static void
refuse(SimRequest *request, const char *message)
{
	sim_reply(request, 400,
			  json_pack("{s:[{s:s, s:{s:s}}]}", "errors", "message", message, "extensions", "code",
						"GRAPHQL_VALIDATION_FAILED"));
	request->content_type = "application/json";
}

/* Answer that a mutation failed: with 200. */
static void
fail(SimRequest *request, const char *mutation, const char *message, const char *code)
{
	sim_reply(request, 200,
			  json_pack("{s:[{s:s, s:[s], s:{s:s}}], s:{s:n}}", "errors", "message", message,
						"path", mutation, "extensions", "code", code, "data", mutation));
}

/* An argument of the query: a variable, or a literal in its text. New reference, or NULL. */
static json_t *
argument(const SimRequest *request, const char *name)
{
	const char *text = json_string_value(json_object_get(request->json, "query"));
	const json_t *variables = json_object_get(request->json, "variables");
	const json_t *input = json_object_get(variables, "input");
	json_t *value = json_object_get(input != NULL ? input : variables, name);

	if (value != NULL)
		return json_incref(value);
	for (const char *at = text; (at = strstr(at, name)) != NULL; at++)
	{
		const char *rest = at + strlen(name);

		rest += strspn(rest, " ");
		if (*rest != ':' || (at > text && isalnum((unsigned char) at[-1])))
			continue;
		return json_loads(rest + 1, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, NULL);
	}
	return NULL;
}

/* Put an argument into an object under a key, if it is of that type. */
static void
take(const SimRequest *request, const char *name, json_type type, json_t *object, const char *key)
{
	json_t *value = argument(request, name);

	if (value != NULL && json_typeof(value) == type)
		json_object_set(object, key, value);
	json_decref(value);
}

/* podFindAndDeployOnDemand: a create; its refusals have a code. */
static void
deploy(SimRequest *request, const char *mutation)
{
	json_t *wish = json_pack("{s:s, s:s, s:{s:i}}", "name", "pod", "image", "", "gpu", "count", 1);
	const json_t *data = NULL;

	take(request, "name", JSON_STRING, wish, "name");
	take(request, "imageName", JSON_STRING, wish, "image");
	take(request, "gpuTypeId", JSON_STRING, json_object_get(wish, "gpu"), "id");
	take(request, "gpuCount", JSON_INTEGER, json_object_get(wish, "gpu"), "count");
	take(request, "cloudType", JSON_STRING, wish, "cloud");
	request->op = "create";
	sim_create_wished(request, wish);
	json_decref(wish);
	data = request->answer;
	if (request->status == 201)
		sim_reply(request, 200,
				  json_pack("{s:{s:{s:O, s:O}}}", "data", mutation, "id",
							json_object_get(data, "id"), "imageName",
							json_object_get(data, "image")));
	else
	{
		json_t *detail = json_incref(json_object_get(data, "detail"));

		fail(request, mutation, json_string_value(detail),
			 request->status == 400		? "SUPPLY_CONSTRAINT" :
				 request->status == 402 ? "INSUFFICIENT_BALANCE" :
										  "INTERNAL_SERVER_ERROR");
		json_decref(detail);
	}
}

/* podTerminate: a delete. */
static void
terminate(SimRequest *request, const char *mutation)
{
	json_t *id = argument(request, "podId");
	SimPod *pod = json_is_string(id) ? sim_pod_find(json_string_value(id)) : NULL;

	if (json_is_string(id))
		snprintf(request->segment, sizeof(request->segment), "%s", json_string_value(id));
	json_decref(id);
	request->op = "delete";
	if (pod == NULL || pod->deleted_at != 0)
	{
		fail(request, mutation, "pod not found to terminate", "POD_NOT_FOUND");
		return;
	}
	sim_pod_delete(request, pod);
	sim_reply(request, 200, json_pack("{s:{s:n}}", "data", mutation));
}

/* myself: what of the account was asked for. */
static void
tell_myself(SimRequest *request, const char *text)
{
	double now = sim_now();
	json_t *myself = json_object();

	if (strstr(text, "clientBalance") != NULL)
		json_object_set_new(myself, "clientBalance", json_real(sim_balance(now)));
	if (strstr(text, "currentSpendPerHr") != NULL)
		json_object_set_new(myself, "currentSpendPerHr", json_real(sim_spend_per_hour()));
	if (strstr(text, "{id") != NULL || strstr(text, " id") != NULL || json_object_size(myself) == 0)
		json_object_set_new(myself, "id", json_string("user_sim"));
	sim_reply(request, 200, json_pack("{s:{s:o}}", "data", "myself", myself));
}

/* POST /graphql: with a bad key 401, myself with none null. */
void
sim_graphql_post(SimRequest *request)
{
	static const struct
	{
		const char *name;
		void (*serve)(SimRequest *request, const char *mutation);
	} mutations[] = { { "podFindAndDeployOnDemand", deploy }, { "podTerminate", terminate } };
	const char *text = json_string_value(json_object_get(request->json, "query"));
	const char *key = sim_query(request, "api_key");
	const char *header =
		MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Authorization");

	if (header != NULL && strncmp(header, "Bearer ", 7) == 0)
		key = header + 7;
	if (text == NULL)
		refuse(request, "a query is missing");
	else if (strstr(text, "__schema") != NULL || strstr(text, "__type") != NULL)
		refuse(request, "introspection is not allowed");
	else if (key != NULL && (sim.revoked || strcmp(key, sim.api_key) != 0))
		sim_fail(request, 401, "invalid api key", NULL);
	for (size_t m = 0; request->status == 0 && m < sizeof(mutations) / sizeof(mutations[0]); m++)
	{
		if (strstr(text, mutations[m].name) == NULL)
			continue;
		if (key == NULL || sim.read_only)
			fail(request, mutations[m].name, "access denied", "FORBIDDEN");
		else
			mutations[m].serve(request, mutations[m].name);
	}
	if (request->status != 0)
		return;
	if (strstr(text, "myself") == NULL)
		refuse(request, "only myself, podFindAndDeployOnDemand and podTerminate are served");
	else if (key == NULL)
		sim_reply(request, 200, json_pack("{s:{s:n}}", "data", "myself"));
	else
		tell_myself(request, text);
}
