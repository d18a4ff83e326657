/*
 * sim_routes.c
 *	  From a request to its answer: the table of paths, who may call, how often, under which faults.
 *
 * sim_begin() decides whether and with which faults a request is served, sim_execute() serves it;
 * the caller may hold the request back in between and afterwards. What a call does is not here.
 */
#include <ctype.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* Flags of a route. */
#define ROUTE_OPEN 1	/* needs no key of the account */
#define ROUTE_CONTROL 2 /* our own: no key, no faults, not counted */
#define ROUTE_POD 4		/* a pod may call it for itself */
#define ROUTE_WRITES 8	/* refused for a read-only key */

static void openapi_get(SimRequest *request);

static const SimRoute routes[] = {
	{ "GET", "/v2/pods", "list", sim_pods_list, 0 },
	{ "POST", "/v2/pods", "create", sim_pods_create, ROUTE_WRITES },
	{ "GET", "/v2/pods/*", "get", sim_pods_get, ROUTE_POD },
	{ "PATCH", "/v2/pods/*", "update", sim_pods_update, ROUTE_WRITES },
	{ "DELETE", "/v2/pods/*", "delete", sim_pods_delete, ROUTE_POD | ROUTE_WRITES },
	{ "POST", "/v2/pods/*/action", "action", sim_pods_action, ROUTE_WRITES },
	{ "GET", "/v2/catalog/gpus", "catalog", sim_gpus_get, 0 },
	{ "GET", "/v2/catalog/gpus/*", "catalog", sim_gpus_get, 0 },
	{ "GET", "/v2/catalog/datacenters", "catalog", sim_data_centers_get, 0 },
	{ "GET", "/v2/catalog/datacenters/*", "catalog", sim_data_centers_get, 0 },
	{ "GET", "/v2/billing/pods", "billing", sim_billing_get, 0 },
	{ "GET", "/v2/openapi.json", "openapi", openapi_get, ROUTE_OPEN },
	{ "POST", "/graphql", "graphql", sim_graphql_post, ROUTE_OPEN },
	{ "GET", "/v1/pods", "list", sim_v1_list, 0 },
	{ "POST", "/v1/pods", "create", sim_v1_create, ROUTE_WRITES },
	{ "GET", "/v1/pods/*", "get", sim_v1_get, ROUTE_POD },
	{ "DELETE", "/v1/pods/*", "delete", sim_v1_delete, ROUTE_POD | ROUTE_WRITES },
	{ "GET", "/_sim/ledger", "", sim_ledger_get, ROUTE_CONTROL },
	{ "GET", "/_sim/faults", "", sim_rules_get, ROUTE_CONTROL },
	{ "POST", "/_sim/faults", "", sim_rules_post, ROUTE_CONTROL },
	{ "GET", "/_sim/clock", "", sim_clock_get, ROUTE_CONTROL },
	{ "POST", "/_sim/clock", "", sim_clock_post, ROUTE_CONTROL },
	{ "GET", "/_sim/pods", "", sim_control_pods_get, ROUTE_CONTROL },
	{ "POST", "/_sim/pods", "", sim_control_pods_post, ROUTE_CONTROL },
	{ "GET", "/_sim/balance", "", sim_balance_get, ROUTE_CONTROL },
	{ "POST", "/_sim/balance", "", sim_balance_post, ROUTE_CONTROL },
	{ "POST", "/_sim/key", "", sim_key_post, ROUTE_CONTROL },
	{ "POST", "/_sim/stock", "", sim_stock_post, ROUTE_CONTROL },
	{ "POST", "/_sim/refuse", "", sim_refuse_post, ROUTE_CONTROL },
};
#define N_ROUTES (sizeof(routes) / sizeof(routes[0]))

/* GET /v2/openapi.json: the paths that are served here. */
static void
openapi_get(SimRequest *request)
{
	json_t *paths = json_object();

	for (size_t i = 0; i < N_ROUTES; i++)
	{
		char method[8] = "";

		if ((routes[i].flags & ROUTE_CONTROL) != 0 || strncmp(routes[i].path, "/v1/", 4) == 0)
			continue;
		for (size_t c = 0; routes[i].method[c] != '\0'; c++)
			method[c] = (char) tolower((unsigned char) routes[i].method[c]);
		if (json_object_get(paths, routes[i].path) == NULL)
			json_object_set_new(paths, routes[i].path, json_object());
		json_object_set_new(json_object_get(paths, routes[i].path), method,
							json_pack("{s:s}", "operationId", routes[i].call));
	}
	sim_reply(request, 200,
			  json_pack("{s:s, s:{s:s, s:s}, s:o}", "openapi", "3.1.0", "info", "title",
						PROGRAM_NAME, "version", "2", "paths", paths));
}

/* Find the route of a request, or answer 404 or 405. */
static bool
find_route(SimRequest *request)
{
	for (size_t i = 0; i < N_ROUTES; i++)
	{
		const SimRoute *route = &routes[i];
		const char *star = strchr(route->path, '*');
		size_t len = strlen(request->allow);

		if (fnmatch(route->path, request->path, FNM_PATHNAME) != 0)
			continue;
		if (strcmp(route->method, request->method) != 0)
		{
			snprintf(request->allow + len, sizeof(request->allow) - len, "%s%s",
					 len > 0 ? ", " : "", route->method);
			continue;
		}
		request->route = route;
		request->allow[0] = '\0';
		if (star != NULL)
		{
			const char *segment = request->path + (star - route->path);

			snprintf(request->segment, sizeof(request->segment), "%.*s",
					 (int) strcspn(segment, "/"), segment);
		}
		return true;
	}
	if (request->allow[0] != '\0')
		sim_fail(request, 405, "The requested method is not allowed for this path.", NULL);
	else
		sim_fail(request, 404, "The requested path was not found.", NULL);
	return false;
}

/* Does a header's value hold a key of the account or of a pod, and may it call this route? */
static bool
check_key(SimRequest *request)
{
	const char *header =
		MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Authorization");
	const char *key = header != NULL && strncmp(header, "Bearer ", 7) == 0 ? header + 7 : "";
	int flags = request->route->flags;

	if ((flags & (ROUTE_OPEN | ROUTE_CONTROL)) != 0)
		return true;
	request->key_pod = sim_pod_by_key(key);
	if (request->key_pod != NULL)
	{
		if ((flags & ROUTE_POD) != 0 && strcmp(request->segment, request->key_pod->id) == 0)
			return true;
		sim_fail(request, 403, "access denied", NULL);
		return false;
	}
	if (sim.revoked || strcmp(key, sim.api_key) != 0)
		sim_fail(request, 401, "missing bearer token", NULL);
	else if (sim.read_only && (flags & ROUTE_WRITES) != 0)
		sim_fail(request, 403, "access denied", NULL);
	return request->status == 0;
}

/* Count a request against the quotas of the minute and the hour, and refuse it if one is used up. */
static bool
check_quota(SimRequest *request)
{
	static struct
	{
		const char *name;
		double length;
		long factor; /* the quota, in those of a minute */
		double window;
		long used;
	} windows[] = { { "minute", 60, 1, 0, 0 }, { "hour", 3600, 50, 0, 0 } };
	double now = sim_now();
	double wait = 0;

	for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++)
	{
		long quota = sim.quota * windows[w].factor;
		double window = floor(now / windows[w].length);
		double rest = ceil((window + 1) * windows[w].length - now);
		size_t policy_len = strlen(request->rate_policy);
		size_t state_len = strlen(request->rate_limit);

		if (window != windows[w].window)
		{
			windows[w].window = window;
			windows[w].used = 0;
		}
		if (windows[w].used >= quota)
			wait = fmax(wait, rest);
		else
			windows[w].used++;
		snprintf(request->rate_policy + policy_len, sizeof(request->rate_policy) - policy_len,
				 "%s\"%s\";q=%ld;w=%.0f", w > 0 ? ", " : "", windows[w].name, quota,
				 windows[w].length);
		snprintf(request->rate_limit + state_len, sizeof(request->rate_limit) - state_len,
				 "%s\"%s\";r=%ld;t=%.0f", w > 0 ? ", " : "", windows[w].name,
				 quota - windows[w].used, rest);
	}
	if (wait == 0)
		return true;
	snprintf(request->retry_after, sizeof(request->retry_after), "%.0f", wait);
	sim_fail(request, 429, "rate limit exceeded for the minute window", NULL);
	return false;
}

/* What the ledger calls a request, or NULL if it does not note it. */
static const char *
ledger_op(const SimRequest *request)
{
	const char *action = json_string_value(json_object_get(request->json, "action"));

	if (strcmp(request->route->call, "create") == 0 || strcmp(request->route->call, "delete") == 0)
		return request->route->call;
	if (strcmp(request->route->call, "action") == 0 && action != NULL &&
		strcmp(action, "terminate") == 0)
		return "delete";
	return NULL;
}

/* Put the answer into the bytes that are sent. */
static void
write_payload(SimRequest *request)
{
	if (request->answer != NULL && request->content_type != NULL &&
		strcmp(request->content_type, "text/html") == 0)
	{
		const char *title = json_string_value(json_object_get(request->answer, "title"));
		json_t *page =
			json_sprintf("<html><head><title>%d %s</title></head><body><h1>%s</h1></body></html>\n",
						 request->status, title, title);

		request->payload = strdup(json_string_value(page));
		json_decref(page);
	}
	else if (request->answer != NULL)
		request->payload = json_dumps(request->answer, JSON_COMPACT | JSON_REAL_PRECISION(15));
	sim_fault_body(request);
	request->payload_len = request->payload != NULL ? strlen(request->payload) : 0;
}

/* Note how the answer travels, since its rule may be gone by then. A dropped answer has no status. */
static void
choose_wire(SimRequest *request)
{
	const SimRule *rule = request->faults[FAULT_WIRE];

	if (rule == NULL)
		return;
	request->wire = rule->action;
	if (strcmp(rule->action->name, "truncate") == 0)
		request->wire_bytes =
			(size_t) sim_rule_number(rule, "bytes", (double) (request->payload_len / 2));
	else if (strcmp(rule->action->name, "drip") == 0)
	{
		request->wire_bytes = (size_t) sim_rule_number(rule, "bytes", 16);
		request->wire_seconds = sim_rule_number(rule, "interval", 0.1);
	}
	else if (strcmp(rule->action->name, "stall") == 0)
		request->wire_seconds = sim_rule_number(rule, "seconds", 3600);
	else
		request->status = 0;
}

/* The last of a request: what travels, and what is remembered of it. */
static void
finish(SimRequest *request)
{
	if (request->op == NULL && request->route != NULL)
		request->op = ledger_op(request);
	if (sim_v1_is(request))
		sim_v1_answer(request);
	write_payload(request);
	choose_wire(request);
	sim_record_answer(request);
	if (request->op != NULL)
		sim_ledger_note(request);
}

/* May a request come in at all? Otherwise it is answered. */
static bool
is_let_in(SimRequest *request)
{
	const char *agent =
		MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "User-Agent");

	if (agent == NULL || strncmp(agent, "Python-urllib", 13) == 0)
	{
		request->status = 403;
		request->content_type = "text/plain";
		request->payload = strdup("error code: 1010\n");
	}
	else if (sim_v1_is(request) && !sim.rest_v1)
		sim_fail(request, 410, "This API has been retired.", NULL);
	return request->status == 0;
}

/*
 * Look at a request: a status afterwards is a refusal that is already complete; otherwise it is
 * to be executed.
 */
void
sim_begin(SimRequest *request)
{
	bool is_ours = strncmp(request->path, "/_sim/", 6) == 0;

	sim_pods_tick(sim_now());
	if (!is_ours)
	{
		sim_random_text(&sim.request_ids, "0123456789abcdef", request->request_id, 32);
		sim_record_begin(request);
	}
	if (request->body_len > 0)
		request->json = json_loadb(request->body, request->body_len, 0, NULL);
	if ((is_ours || is_let_in(request)) && find_route(request) && check_key(request) &&
		((request->route->flags & (ROUTE_CONTROL | ROUTE_OPEN)) != 0 || check_quota(request)))
	{
		if (request->too_large)
			sim_fail(request, 413, "The request body is too large.", NULL);
		else if ((request->route->flags & ROUTE_CONTROL) == 0)
			sim_fault_plan(request);
	}
	if (request->status != 0)
		finish(request);
}

/* Give the answer of a call that takes effect later: what a rule wants, or what tells nothing. */
static void
answer_ahead(SimRequest *request)
{
	if (sim_fault_answer(request, false) || sim_fault_answer(request, true))
		return;
	if (strcmp(request->method, "DELETE") == 0)
		sim_reply(request, 204, NULL);
	else
		sim_fail(request, 504, "The request took too long.", NULL);
}

/* Serve a request under its faults. */
void
sim_execute(SimRequest *request)
{
	const SimRule *wire = request->faults[FAULT_WIRE];
	bool cut = wire != NULL && !wire->action->after;

	if (request->faults[FAULT_EFFECT] != NULL && (request->route->flags & ROUTE_WRITES) != 0)
	{
		answer_ahead(request);
		finish(request);
		sim_later_add(request);
		return;
	}
	if (!cut && !sim_fault_answer(request, false))
	{
		request->route->serve(request);
		sim_fault_alter(request);
		sim_fault_answer(request, true);
	}
	finish(request);
}
