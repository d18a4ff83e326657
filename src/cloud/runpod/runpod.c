/*
 * cloud/runpod/runpod.c
 *	  RunPod's REST API v2: its paths, and what is sent to it. Its answers are read by
 *	  cloud/runpod/read.c; no other file knows the names of its fields.
 *
 * Turns calls into requests and answers into verdicts. An answer is taken as proof
 * only if it could be read and concerns what was asked for: a create must return
 * the very name that was sent, a list is whole or nothing. What the provider says
 * in prose reaches no row before the key and the values of the pod's environment
 * are blanked out; bodies are never kept.
 *
 * Must not repeat a call, decide what follows from an answer, or touch a table. The
 * session lives in a memory context of its own below TopMemoryContext, each call in
 * one below that; a call's context is handed to the caller with its answer.
 */
#include "postgres.h"

#include "cloud/runpod/runpod.h"
#include "cloud/text.h"
#include "http/client.h"
#include "http/retry.h"
#include "http/url.h"
#include "base/json_read.h"
#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The provider refuses longer requests. */
#define MAX_REQUEST_BYTES 102400
#define MAX_LIST_BYTES (16 * 1024 * 1024)
#define MAX_ANSWER_BYTES (1024 * 1024)
#define PAGE_SIZE 1000
/* A create may be silent for as long as its time limit; nothing else needs that. */
#define STALL_TIMEOUT_S 20

struct CloudSession
{
	MemoryContext context;
	HttpClient *client;
	char *api_url; /* without a slash at the end */
	char *key;
	char *ca_file; /* NULL: the system's certificates */
	int connect_timeout_ms;
	int timeout_ms;
	dlist_head calls;
	int n_calls;
};

static const HttpEffect effects[] = {
	[CLOUD_CREATE] = HTTP_MAKES,   [CLOUD_GET] = HTTP_READS,	 [CLOUD_LIST] = HTTP_READS,
	[CLOUD_DELETE] = HTTP_REMOVES, [CLOUD_CATALOG] = HTTP_READS, [CLOUD_ACCOUNT] = HTTP_READS,
	[CLOUD_BILLING] = HTTP_READS,
};

static const CloudVerdict verdicts[] = {
	[HTTP_DONE] = CLOUD_OK,
	[HTTP_REFUSED] = CLOUD_REFUSED,
	[HTTP_UNKNOWN] = CLOUD_UNKNOWN,
	[HTTP_NOT_SENT] = CLOUD_NOT_SENT,
};

static const CloudReason reasons[] = {
	[HTTP_REASON_NONE] = CR_NONE,
	[HTTP_REASON_INVALID] = CR_INVALID,
	[HTTP_REASON_AUTH] = CR_AUTH,
	[HTTP_REASON_BALANCE] = CR_BALANCE,
	[HTTP_REASON_FORBIDDEN] = CR_FORBIDDEN,
	[HTTP_REASON_NOT_FOUND] = CR_NOT_FOUND,
	[HTTP_REASON_CONFLICT] = CR_CONFLICT,
	[HTTP_REASON_RATE] = CR_RATE,
	[HTTP_REASON_SERVER] = CR_SERVER,
	[HTTP_REASON_NETWORK] = CR_NETWORK,
	[HTTP_REASON_UNREADABLE] = CR_UNREADABLE,
};

/* A 400 says in prose alone that there is no capacity. */
static const char *const capacity_texts[] = {
	"no longer any instances available",
	"no instances available",
	"no instances are available",
	"not enough free gpus",
};

/* ---- sessions ---- */

/* Overwrite and free a secret. */
static void
forget(char *secret)
{
	explicit_bzero(secret, strlen(secret));
	pfree(secret);
}

/*
 * Open a session with the provider; nothing is sent. NULL with a reason palloc'd in
 * *error if the URL is refused or libcurl cannot be started. Lives until cloud_close().
 * Servers are verified by the certificates in ca_file, NULL or empty: by the system's.
 */
CloudSession *
cloud_open(const char *api_url, const char *key, const char *ca_file, int connect_timeout_ms,
		   int timeout_ms, char **error)
{
	const char *problem = http_url_problem(api_url, true);
	CloudSession *session;
	MemoryContext context;
	HttpClient *client;
	size_t len = strlen(api_url);

	if (problem != NULL)
	{
		*error = psprintf("the provider's URL \"%s\" is refused: %s", api_url, problem);
		return NULL;
	}
	context =
		AllocSetContextCreate(TopMemoryContext, "gpu_orch cloud session", ALLOCSET_DEFAULT_SIZES);
	session = MemoryContextAllocZero(context, sizeof(CloudSession));
	session->context = context;
	while (len > 0 && api_url[len - 1] == '/')
		len--;
	session->api_url = MemoryContextStrdup(context, api_url);
	session->api_url[len] = '\0';
	session->key = MemoryContextStrdup(context, key);
	session->ca_file = text_given(ca_file) ? MemoryContextStrdup(context, ca_file) : NULL;
	session->connect_timeout_ms = connect_timeout_ms;
	session->timeout_ms = timeout_ms;
	dlist_init(&session->calls);
	client = http_client_create(error);
	if (client == NULL)
	{
		forget(session->key);
		MemoryContextDelete(context);
		return NULL;
	}
	session->client = client;
	return session;
}

/* Use another key from the next request on. */
void
cloud_set_key(CloudSession *session, const char *key)
{
	char *copy = MemoryContextStrdup(session->context, key);

	forget(session->key);
	session->key = copy;
}

/* Forget what a call kept secret. */
static void
forget_secrets(RunpodCall *call)
{
	forget(call->key);
	for (int i = 0; i < call->n_secrets; i++)
		forget(call->secrets[i]);
}

/* Take a call out of its session; its context remains. */
static void
unlink_call(CloudSession *session, RunpodCall *call)
{
	forget_secrets(call);
	dlist_delete(&call->node);
	session->n_calls--;
}

/* End a session; calls under way are given up and have no answer. */
void
cloud_close(CloudSession *session)
{
	http_client_destroy(session->client);
	while (!dlist_is_empty(&session->calls))
		unlink_call(session, dlist_head_element(RunpodCall, node, &session->calls));
	forget(session->key);
	MemoryContextDelete(session->context);
}

/* What the administrator should know about the libraries used here; NULL if all is well. */
const char *
cloud_warning(void)
{
	return http_client_warning();
}

/* Readable when cloud_drive() has something to do. */
int
cloud_fd(CloudSession *session)
{
	return http_client_fd(session->client);
}

/* Milliseconds until cloud_drive() is due although nothing arrived; -1: no limit. */
long
cloud_timeout_ms(CloudSession *session)
{
	return http_client_timeout_ms(session->client);
}

/* Move all calls on without waiting; take the answers with cloud_next_answer() afterwards. */
void
cloud_drive(CloudSession *session)
{
	http_client_drive(session->client);
}

/* Calls that were started and whose answer was not taken. */
int
cloud_in_flight(CloudSession *session)
{
	return session->n_calls;
}

/* ---- starting calls ---- */

/* A new call, in its session's list. */
static RunpodCall *
new_call(CloudSession *session, CloudCall kind, int64 tag, const char *expected)
{
	MemoryContext context =
		AllocSetContextCreate(session->context, "gpu_orch cloud call", ALLOCSET_SMALL_SIZES);
	RunpodCall *call = MemoryContextAllocZero(context, sizeof(RunpodCall));

	call->context = context;
	call->call = kind;
	call->tag = tag;
	call->key = MemoryContextStrdup(context, session->key);
	call->expected = expected != NULL ? MemoryContextStrdup(context, expected) : NULL;
	dlist_push_tail(&session->calls, &call->node);
	session->n_calls++;
	return call;
}

/* How much of a URL says where the server is. */
static int
origin_length(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = host != NULL ? strchr(host + 3, '/') : NULL;

	return path != NULL ? (int) (path - url) : (int) strlen(url);
}

/*
 * Send the request of a call, or of a list's next page. False with a reason in
 * *error if it cannot be: nothing was sent.
 */
static bool
send_request(CloudSession *session, RunpodCall *call, HttpMethod method, const char *path,
			 const char *body, char **error)
{
	HttpRequest request = { 0 };

	request.method = method;
	request.url = call->call == CLOUD_ACCOUNT ?
		psprintf("%.*s%s", origin_length(session->api_url), session->api_url, path) :
		psprintf("%s%s", session->api_url, path);
	request.body = body;
	request.bearer = call->key;
	request.ca_file = session->ca_file;
	request.connect_timeout_ms = session->connect_timeout_ms;
	request.timeout_ms = session->timeout_ms;
	request.stall_timeout_s = call->call == CLOUD_CREATE ? 0 : STALL_TIMEOUT_S;
	request.max_answer =
		call->call == CLOUD_LIST || call->call == CLOUD_BILLING ? MAX_LIST_BYTES : MAX_ANSWER_BYTES;
	request.user = call;
	return http_client_start(session->client, &request, error);
}

/* Send the first request of a new call, or drop the call. */
static bool
begin_call(CloudSession *session, RunpodCall *call, HttpMethod method, const char *path,
		   const char *body, char **error)
{
	if (send_request(session, call, method, path, body, error))
		return true;
	unlink_call(session, call);
	MemoryContextDelete(call->context);
	return false;
}

/* Append a JSON string, after a comma unless it is the first of its object or array. */
static void
add_json(StringInfo out, const char *text)
{
	if (out->data[out->len - 1] != '{' && out->data[out->len - 1] != '[')
		appendStringInfoChar(out, ',');
	escape_json(out, text);
}

/* Append a key. */
static void
add_key(StringInfo out, const char *key)
{
	add_json(out, key);
	appendStringInfoChar(out, ':');
}

/* Append a key with a string; nothing if that is not given. */
static void
add_string(StringInfo out, const char *key, const char *value)
{
	if (!text_given(value))
		return;
	add_key(out, key);
	escape_json(out, value);
}

/* Append a key with an array of strings; nothing if there are none. */
static void
add_strings(StringInfo out, const char *key, const char *const *values, int n)
{
	if (n == 0)
		return;
	add_key(out, key);
	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
		add_json(out, values[i]);
	appendStringInfoChar(out, ']');
}

/* The body of a create. It holds secrets. */
static void
write_spec(StringInfo out, const CloudPodSpec *spec)
{
	appendStringInfoChar(out, '{');
	add_string(out, "name", spec->name);
	add_string(out, "image", spec->image);
	add_string(out, "templateId", spec->template_id);
	add_key(out, "gpu");
	appendStringInfoChar(out, '{');
	add_string(out, "id", spec->gpu_type);
	add_key(out, "count");
	appendStringInfo(out, "%d", spec->gpu_count);
	add_string(out, "minCudaVersion", spec->min_cuda_version);
	appendStringInfoChar(out, '}');
	add_string(out, "cloud", spec->cloud_type);
	add_strings(out, "dataCenterIds", spec->data_centers, spec->n_data_centers);
	if (spec->container_disk_gb > 0)
	{
		add_key(out, "disk");
		appendStringInfo(out, "%d", spec->container_disk_gb);
	}
	if (text_given(spec->volume_id))
	{
		add_key(out, "mounts");
		appendStringInfoString(out, "{\"network\":[{");
		add_string(out, "volumeId", spec->volume_id);
		add_string(out, "path", spec->volume_mount_path);
		appendStringInfoString(out, "}]}");
	}
	add_string(out, "args", spec->args);
	add_string(out, "registry", spec->registry_id);
	add_strings(out, "ports", spec->ports, spec->n_ports);
	if (spec->n_env > 0)
	{
		add_key(out, "env");
		appendStringInfoChar(out, '{');
		for (int i = 0; i < spec->n_env; i++)
		{
			add_key(out, spec->env[i].name);
			escape_json(out, spec->env[i].value);
		}
		appendStringInfoChar(out, '}');
	}
	appendStringInfoChar(out, '}');
}

/* Why such a pod is not even asked for; NULL if it is. */
static const char *
spec_problem(const CloudPodSpec *spec, const StringInfoData *body)
{
	if (!text_given(spec->name))
		return "it has no name";
	if (!text_given(spec->gpu_type))
		return "it has no GPU type";
	if (spec->gpu_count < 1)
		return "it has no GPU";
	if (!text_given(spec->image) && !text_given(spec->template_id))
		return "it has neither image nor template";
	if (text_given(spec->volume_id) && !text_given(spec->volume_mount_path))
		return "its volume has no mount path";
	if (body->len > MAX_REQUEST_BYTES)
		return "its description is longer than the provider accepts";
	return json_read_text_problem(body->data, body->len);
}

/* Create a pod: one request, on an HTTP/1.1 connection of its own, never repeated. */
bool
cloud_start_create(CloudSession *session, int64 tag, const CloudPodSpec *spec, char **error)
{
	StringInfoData body;
	const char *problem;
	bool started = false;

	initStringInfo(&body);
	write_spec(&body, spec);
	problem = spec_problem(spec, &body);
	if (problem != NULL)
		*error = psprintf("the pod cannot be asked for: %s", problem);
	else
	{
		RunpodCall *call = new_call(session, CLOUD_CREATE, tag, spec->name);

		call->secrets = MemoryContextAlloc(call->context, Max(spec->n_env, 1) * sizeof(char *));
		for (int i = 0; i < spec->n_env; i++)
			call->secrets[call->n_secrets++] =
				MemoryContextStrdup(call->context, spec->env[i].value);
		started = begin_call(session, call, HTTP_POST, "/pods", body.data, error);
	}
	explicit_bzero(body.data, body.len);
	pfree(body.data);
	return started;
}

/* Start a call that concerns one pod. */
static bool
start_pod_call(CloudSession *session, CloudCall kind, int64 tag, HttpMethod method,
			   const char *pod_id, char **error)
{
	if (!cloud_runpod_is_id(pod_id))
	{
		*error = pstrdup("the pod's id is not of the provider's form");
		return false;
	}
	return begin_call(session, new_call(session, kind, tag, pod_id), method,
					  psprintf("/pods/%s", pod_id), NULL, error);
}

/* Look at one pod. */
bool
cloud_start_get(CloudSession *session, int64 tag, const char *pod_id, char **error)
{
	return start_pod_call(session, CLOUD_GET, tag, HTTP_GET, pod_id, error);
}

/* Delete a pod. libcurl may send this twice over a reused connection, which is harmless. */
bool
cloud_start_delete(CloudSession *session, int64 tag, const char *pod_id, char **error)
{
	return start_pod_call(session, CLOUD_DELETE, tag, HTTP_DELETE, pod_id, error);
}

/* List all pods of the account with a key that is only tried; the session keeps its own. */
bool
cloud_try_key(CloudSession *session, int64 tag, const char *key, char **error)
{
	RunpodCall *call = new_call(session, CLOUD_LIST, tag, NULL);

	forget(call->key);
	call->key = MemoryContextStrdup(call->context, key);
	return begin_call(session, call, HTTP_GET, psprintf("/pods?limit=%d", PAGE_SIZE), NULL, error);
}

/* List all pods of the account, page by page. */
bool
cloud_start_list(CloudSession *session, int64 tag, char **error)
{
	return cloud_try_key(session, tag, session->key, error);
}

/* Read prices and stock. */
bool
cloud_start_catalog(CloudSession *session, int64 tag, char **error)
{
	return begin_call(session, new_call(session, CLOUD_CATALOG, tag, NULL), HTTP_GET,
					  "/catalog/gpus?include=AVAILABILITY&product=POD", NULL, error);
}

/* Read whose account the key is of, and its balance, which the REST API does not tell. */
bool
cloud_start_account(CloudSession *session, int64 tag, char **error)
{
	return begin_call(session, new_call(session, CLOUD_ACCOUNT, tag, NULL), HTTP_POST, "/graphql",
					  "{\"query\":\"query{myself{id clientBalance currentSpendPerHr}}\"}", error);
}

/* Read what pods were billed for, by the hour, since a time. */
bool
cloud_start_billing(CloudSession *session, int64 tag, TimestampTz from, char **error)
{
	struct pg_tm when;
	fsec_t fraction;

	if (timestamp2tm(from, NULL, &when, &fraction, NULL, NULL) != 0)
	{
		*error = pstrdup("the time to read the bills from is out of range");
		return false;
	}
	return begin_call(
		session, new_call(session, CLOUD_BILLING, tag, NULL), HTTP_GET,
		psprintf("/billing/pods?bucketSize=hour&startTime=%04d-%02d-%02dT%02d:%02d:%02dZ",
				 when.tm_year, when.tm_mon, when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec),
		NULL, error);
}

/* ---- answers ---- */

/* Does the provider say that it has nothing of the kind? */
static bool
tells_no_capacity(const char *text)
{
	for (int i = 0; i < lengthof(capacity_texts); i++)
	{
		if (strcasestr(text, capacity_texts[i]) != NULL)
			return true;
	}
	return false;
}

/*
 * Judge what arrived for a call: sets the answer's verdict and message. Parses in the
 * current context; what is kept goes to the call's.
 */
static void
runpod_judge(RunpodCall *call, const HttpResult *result, CloudAnswer *answer)
{
	bool success = result->status >= 200 && result->status <= 299;
	const char *text = result->error;
	bool readable = false;
	HttpVerdict verdict;

	if (result->phase == HTTP_COMPLETE && !(success && call->call == CLOUD_DELETE))
	{
		char *parse_error;
		Jsonb *json = json_read_parse(result->body, result->body_len, &parse_error);
		JsonbContainer *root = json != NULL ? json_read_root(json) : NULL;
		const char *problem;

		if (root == NULL)
			problem = parse_error != NULL ? parse_error : "it is not an object";
		else if (success)
			problem = cloud_runpod_read(call, root);
		else
		{
			text = cloud_runpod_problem(root);
			problem = text != NULL ? NULL : "it explains nothing";
		}
		readable = problem == NULL;
		if (readable)
			text = psprintf("HTTP %d: %s", result->status, text != NULL ? text : "");
		else
			text = psprintf("HTTP %d: the answer (%zu bytes, type \"%s\") cannot be read: %s",
							result->status, result->body_len, result->content_type, problem);
	}

	verdict = http_retry_judge(effects[call->call], result->phase, result->status, readable);
	answer->verdict = verdicts[verdict.outcome];
	answer->reason = reasons[verdict.reason];
	if (call->call == CLOUD_CREATE && result->status == 400 && readable && tells_no_capacity(text))
		answer->reason = CR_CAPACITY;
	/* Of a property of the request it would say where that stands, as in "$.image". */
	if (call->call == CLOUD_CREATE && result->status == 422 && readable &&
		strcasestr(text, "image") != NULL && strchr(text, '$') == NULL)
		answer->reason = CR_IMAGE;
	if (answer->verdict != CLOUD_OK)
	{
		MemoryContext caller = MemoryContextSwitchTo(call->context);

		answer->message = cloud_text_clean(text, call->key, call->secrets, call->n_secrets);
		MemoryContextSwitchTo(caller);
	}
}

/*
 * Ask for the next page of a list that goes on. If that cannot be done the list failed:
 * sets the answer so and returns false.
 */
static bool
ask_next_page(CloudSession *session, RunpodCall *call, CloudAnswer *answer)
{
	char *cursor = http_client_escape(call->cursor);
	char *error = NULL;

	if (cursor != NULL &&
		send_request(session, call, HTTP_GET,
					 psprintf("/pods?limit=%d&cursor=%s", PAGE_SIZE, cursor), NULL, &error))
		return true;
	answer->verdict = CLOUD_UNKNOWN;
	answer->reason = CR_NETWORK;
	answer->message = MemoryContextStrdup(call->context, error != NULL ? error : "out of memory");
	return false;
}

/*
 * Take one result of the HTTP client. True if it ends its call: then the answer is
 * complete, and the call's context belongs to the context owner.
 */
static bool
take_result(CloudSession *session, const HttpResult *result, CloudAnswer *answer,
			MemoryContext owner)
{
	RunpodCall *call = result->user;

	memset(answer, 0, sizeof(*answer));
	answer->tag = call->tag;
	answer->call = call->call;
	answer->http_status = result->status;
	answer->provider_time = result->date;
	answer->retry_after_ms = result->phase == HTTP_COMPLETE ?
		http_retry_wait_ms(result->status, result->retry_after, result->rate_limit, result->date) :
		-1;
	runpod_judge(call, result, answer);
	if (answer->verdict == CLOUD_OK && call->cursor != NULL && ask_next_page(session, call, answer))
		return false;

	if (answer->verdict == CLOUD_OK)
	{
		if (call->call == CLOUD_LIST)
		{
			cloud_runpod_drop_doubles(call);
			answer->complete = true;
		}
		answer->pods = call->pods;
		answer->n_pods = call->n_pods;
		answer->offers = call->offers;
		answer->n_offers = call->n_offers;
		answer->account = call->account;
		answer->balance_micros = call->balance_micros;
		answer->spend_micros = call->spend_micros;
		answer->bills = call->bills;
		answer->n_bills = call->n_bills;
	}
	unlink_call(session, call);
	MemoryContextSetParent(call->context, owner);
	return true;
}

/*
 * Take the answer of one finished call. False if there is none (a list whose next page
 * was just asked for has none yet). Call after each cloud_drive() until false.
 */
bool
cloud_next_answer(CloudSession *session, CloudAnswer *answer)
{
	MemoryContext owner = CurrentMemoryContext;
	MemoryContext scratch =
		AllocSetContextCreate(owner, "gpu_orch cloud answer", ALLOCSET_DEFAULT_SIZES);
	HttpResult result;
	bool taken = false;

	MemoryContextSwitchTo(scratch);
	while (!taken && http_client_next(session->client, &result))
	{
		taken = take_result(session, &result, answer, owner);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(owner);
	MemoryContextDelete(scratch);
	return taken;
}
