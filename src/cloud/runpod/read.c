/*
 * cloud/runpod/read.c
 *	  What RunPod answers, read: pods, lists, the catalog, the account, bills, problems.
 *
 * Everything that is read goes into the call's own context. Must not send anything,
 * and judge no answer beyond whether it can be read.
 */
#include "postgres.h"

#include "cloud/runpod/runpod.h"
#include "lib/stringinfo.h"
#include "decide/pod_name.h"
#include "utils/memutils.h"

#define MAX_PAGES 100
#define MAX_ID_BYTES 64
#define MAX_ACCOUNT_BYTES 200
#define MAX_CURSOR_BYTES 2048

/* May this stand in a path, and is it of the form that the provider's ids have? */
bool
cloud_runpod_is_id(const char *id)
{
	size_t len = strlen(id);

	return len >= 1 && len <= MAX_ID_BYTES &&
		strspn(id,
			   "0123456789-_"
			   "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == len;
}

/*
 * Read a pod. Absent, null and unknown values are no reason to refuse it, but the id
 * is; one without a name has "".
 */
static const char *
read_pod(JsonbContainer *json, CloudPod *pod)
{
	JsonbContainer *part;
	int64 count;

	memset(pod, 0, sizeof(*pod));
	pod->gpu_count = -1;
	pod->uptime = -1;
	pod->id = json_read_string(json, "id");
	pod->name = json_read_string(json, "name");
	if (pod->name == NULL)
		pod->name = pstrdup("");
	if (pod->id == NULL || !cloud_runpod_is_id(pod->id))
		return "a pod has no valid id";
	pod->status = json_read_string(json, "status");
	if (pod->status == NULL)
		pod->status = pstrdup("");
	/* Stopped pods may cost nothing by this field; that is no price. */
	if (!json_read_micros(json, "cost", &pod->price_micros) || pod->price_micros == 0)
		pod->price_micros = -1;
	part = json_read_object(json, "gpu");
	if (part != NULL)
	{
		pod->gpu_type = json_read_string(part, "id");
		if (json_read_int64(part, "count", &count) && count >= 0 && count <= PG_INT16_MAX)
			pod->gpu_count = (int) count;
	}
	pod->data_center = json_read_string(json, "dataCenterId");
	part = json_read_object(json, "runtime");
	pod->has_runtime = part != NULL && JsonContainerSize(part) > 0;
	if (part != NULL && (!json_read_int64(part, "uptime", &pod->uptime) || pod->uptime < 0))
		pod->uptime = -1;
	(void) json_read_time(json, "createdAt", &pod->created_at);
	part = json_read_object(json, "env");
	if (part != NULL)
	{
		pod->env_installation = json_read_string(part, "GPU_ORCH_INSTALLATION");
		pod->env_op = json_read_string(part, "GPU_ORCH_OP");
		pod->env_pool = json_read_string(part, "GPU_ORCH_POOL");
		pod->env_worker = json_read_string(part, "GPU_ORCH_WORKER_ID");
	}
	return NULL;
}

/* Read the answer of a create or a get: the pod that was asked for, no other. */
static const char *
read_one_pod(RunpodCall *call, JsonbContainer *json)
{
	CloudPod *pod = palloc(sizeof(CloudPod));
	const char *problem = read_pod(json, pod);

	if (problem != NULL)
		return problem;
	if (strcmp(call->call == CLOUD_CREATE ? pod->name : pod->id, call->expected) != 0)
		return "it is about another pod";
	call->pods = pod;
	call->n_pods = 1;
	return NULL;
}

/* Find out whether a list goes on. Servers of before paging send no pagination at all. */
static const char *
read_pagination(RunpodCall *call, JsonbContainer *json)
{
	JsonbContainer *pagination = json_read_object(json, "pagination");
	bool more = false;

	call->cursor = NULL;
	if (pagination == NULL)
		return json_read_has(json, "pagination") ? "its pagination is not an object" : NULL;
	call->cursor = json_read_string(pagination, "nextCursor");
	if (!json_read_bool(pagination, "hasNextPage", &more))
		more = call->cursor != NULL;
	if (!more)
		call->cursor = NULL;
	else if (!text_given(call->cursor) || strlen(call->cursor) > MAX_CURSOR_BYTES)
		return "it announces a page without a usable cursor";
	else if (call->n_pages >= MAX_PAGES)
		return "it has too many pages";
	return NULL;
}

/* Whether a pod that cannot be read is certainly of somebody else. */
static bool
is_foreign(const CloudPod *pod)
{
	return strncmp(pod->name, POD_NAME_PREFIX, strlen(POD_NAME_PREFIX)) != 0;
}

/*
 * Read a page of a list. One pod of our form that cannot be read makes the list
 * unreadable; one of somebody else is left out.
 */
static const char *
read_page(RunpodCall *call, JsonbContainer *json)
{
	JsonbContainer *pods = json_read_array(json, "pods");
	int n;

	call->n_pages++;
	if (pods == NULL)
		return "it has no array of pods";
	n = (int) JsonContainerSize(pods);
	if (n > 0)
	{
		Size size = (call->n_pods + n) * sizeof(CloudPod);

		call->pods = call->pods == NULL ? palloc(size) : repalloc_huge(call->pods, size);
	}
	for (int i = 0; i < n; i++)
	{
		JsonbContainer *json_pod = json_read_object_at(pods, i);
		CloudPod *pod = &call->pods[call->n_pods];
		const char *problem;

		if (json_pod == NULL)
			return "a pod is not an object";
		problem = read_pod(json_pod, pod);
		if (problem == NULL)
			call->n_pods++;
		else if (!is_foreign(pod))
			return problem;
	}
	return read_pagination(call, json);
}

static int
compare_ids(const void *a, const void *b)
{
	return strcmp(((const CloudPod *) a)->id, ((const CloudPod *) b)->id);
}

/* A pod that moved to another page while the list was read is there twice: keep one. */
void
cloud_runpod_drop_doubles(RunpodCall *call)
{
	int kept = 0;

	qsort(call->pods, call->n_pods, sizeof(CloudPod), compare_ids);
	for (int i = 0; i < call->n_pods; i++)
	{
		if (kept == 0 || strcmp(call->pods[kept - 1].id, call->pods[i].id) != 0)
			call->pods[kept++] = call->pods[i];
	}
	call->n_pods = kept;
}

/* The price of a lane of the catalog; 0 dollars and a lane marked as closed are no offer. */
static int64
read_lane_price(JsonbContainer *gpu, const char *lane)
{
	JsonbContainer *prices = json_read_object(gpu, "price");
	bool open = true;
	int64 micros;

	(void) json_read_bool(gpu, lane, &open);
	if (!open || prices == NULL || !json_read_micros(prices, lane, &micros) || micros == 0)
		return -1;
	return micros;
}

/*
 * Append the offers of one GPU type: anywhere, and in each data centre that is named.
 * What nobody can rent, or cannot be read, is left out.
 */
static void
read_gpu_type(RunpodCall *call, JsonbContainer *gpu)
{
	JsonbContainer *places = json_read_array(gpu, "dataCenters");
	int n_places = places != NULL ? (int) JsonContainerSize(places) : 0;
	CloudOffer anywhere = { 0 };
	int64 memory;
	Size size;

	anywhere.gpu_type = json_read_string(gpu, "id");
	anywhere.price_secure_micros = read_lane_price(gpu, "secure");
	anywhere.price_community_micros = read_lane_price(gpu, "community");
	if (!text_given(anywhere.gpu_type) ||
		(anywhere.price_secure_micros < 0 && anywhere.price_community_micros < 0))
		return;
	anywhere.availability = json_read_string(gpu, "availability");
	if (json_read_int64(gpu, "memory", &memory) && memory > 0 && memory <= PG_INT16_MAX)
		anywhere.memory_gb = (int) memory;

	size = (call->n_offers + 1 + n_places) * sizeof(CloudOffer);
	call->offers = call->offers == NULL ? palloc(size) : repalloc(call->offers, size);
	call->offers[call->n_offers++] = anywhere;
	for (int i = 0; i < n_places; i++)
	{
		JsonbContainer *place = json_read_object_at(places, i);
		CloudOffer *offer = &call->offers[call->n_offers];

		*offer = anywhere;
		offer->data_center = place != NULL ? json_read_string(place, "id") : NULL;
		if (!text_given(offer->data_center))
			continue;
		offer->availability = json_read_string(place, "availability");
		call->n_offers++;
	}
}

/* Read the catalog. */
static const char *
read_catalog(RunpodCall *call, JsonbContainer *json)
{
	JsonbContainer *gpus = json_read_array(json, "gpus");

	if (gpus == NULL)
		return "it has no array of GPU types";
	for (int i = 0; i < JsonContainerSize(gpus); i++)
	{
		JsonbContainer *gpu = json_read_object_at(gpus, i);

		if (gpu != NULL)
			read_gpu_type(call, gpu);
	}
	return NULL;
}

/* Read an amount of dollars, in millionths; 0 for a debt, -1 for what is not told. */
static int64
read_dollars(JsonbContainer *json, const char *key)
{
	int64 micros;

	if (json_read_micros(json, key, &micros))
		return micros;
	return json_read_negative(json, key) ? 0 : -1;
}

/* Read whose the key is, and what is left. */
static const char *
read_account(RunpodCall *call, JsonbContainer *json)
{
	JsonbContainer *data = json_read_object(json, "data");
	JsonbContainer *myself = data != NULL ? json_read_object(data, "myself") : NULL;

	call->account = myself != NULL ? json_read_string(myself, "id") : NULL;
	if (!text_given(call->account) || strlen(call->account) > MAX_ACCOUNT_BYTES)
		return "it names no account";
	call->balance_micros = read_dollars(myself, "clientBalance");
	call->spend_micros = read_dollars(myself, "currentSpendPerHr");
	return NULL;
}

/*
 * Read the bills. What cannot be read is left out: other pods' bills are true all the
 * same, and a sum that lacks something shows against ours.
 */
static const char *
read_billing(RunpodCall *call, JsonbContainer *json)
{
	JsonbContainer *records = json_read_array(json, "records");
	int n;

	if (records == NULL)
		return "it has no array of records";
	n = (int) JsonContainerSize(records);
	call->bills = palloc_extended(Max(n, 1) * sizeof(CloudBill), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
	{
		JsonbContainer *record = json_read_object_at(records, i);
		CloudBill *bill = &call->bills[call->n_bills];

		if (record == NULL)
			continue;
		bill->pod_id = json_read_string(record, "podId");
		if (bill->pod_id != NULL && cloud_runpod_is_id(bill->pod_id) &&
			json_read_time(record, "startTime", &bill->hour) &&
			json_read_micros(record, "totalAmount", &bill->amount_micros))
			call->n_bills++;
	}
	return NULL;
}

/* Read the answer of a call that succeeded, into the call's context. Returns why it cannot be, or NULL. */
const char *
cloud_runpod_read(RunpodCall *call, JsonbContainer *json)
{
	MemoryContext caller = MemoryContextSwitchTo(call->context);
	const char *problem = NULL;

	switch (call->call)
	{
		case CLOUD_CREATE:
		case CLOUD_GET:
			problem = read_one_pod(call, json);
			break;
		case CLOUD_LIST:
			problem = read_page(call, json);
			break;
		case CLOUD_CATALOG:
			problem = read_catalog(call, json);
			break;
		case CLOUD_ACCOUNT:
			problem = read_account(call, json);
			break;
		case CLOUD_BILLING:
			problem = read_billing(call, json);
			break;
		case CLOUD_DELETE:
			break;
	}
	MemoryContextSwitchTo(caller);
	return problem;
}

/*
 * What a problem document (or a similar object) says, as one text, palloc'd; NULL
 * if it explains nothing.
 */
char *
cloud_runpod_problem(JsonbContainer *json)
{
	static const char *const keys[] = { "title", "detail", "error", "message" };
	JsonbContainer *errors = json_read_array(json, "errors");
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < lengthof(keys); i++)
	{
		char *part = json_read_string(json, keys[i]);

		if (text_given(part))
			appendStringInfo(&text, "%s%s", text.len > 0 ? ": " : "", part);
	}
	for (int i = 0; errors != NULL && i < JsonContainerSize(errors); i++)
	{
		char *part = json_read_string_at(errors, i);

		if (text_given(part))
			appendStringInfo(&text, "%s%s", text.len > 0 ? "; " : "", part);
	}
	return text.len > 0 ? text.data : NULL;
}
