/*
 * sim_ledger.c
 *	  The outside truth: every request, every create and delete that was asked for, every pod.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* ---- requests ---- */

/* Remember a request that has come. */
void
sim_record_begin(SimRequest *request)
{
	SimRecord *record = sim_alloc(sizeof(SimRecord));

	record->at = sim_now();
	snprintf(record->method, sizeof(record->method), "%s", request->method);
	record->path = strdup(request->path);
	record->call = "";
	sim.records = sim_grow(sim.records, sim.n_records, sizeof(SimRecord *));
	sim.records[sim.n_records++] = record;
	request->record = record;
}

/* Note what a request is answered with, before the answer travels. */
void
sim_record_answer(SimRequest *request)
{
	if (request->record == NULL)
		return;
	request->record->status = request->status;
	request->record->fault = sim_fault_name(request);
	if (request->route != NULL)
		request->record->call = request->route->call;
}

/* Note how a request ended; complete: all of its answer was sent. */
void
sim_record_end(SimRequest *request, bool complete)
{
	SimRecord *record = request->record;

	if (record == NULL)
		return;
	record->ended_at = sim_now();
	if (request->stage == STAGE_SEND && request->status == 0)
		record->outcome = "dropped";
	else
		record->outcome = complete && !request->unheard ? "answered" : "broken";
}

/* A request's line. New reference. */
static json_t *
record_line(const SimRecord *record)
{
	json_t *ended = record->outcome != NULL ? json_real(record->ended_at) : json_null();

	return json_pack("{s:f, s:s, s:s, s:s, s:i, s:s?, s:s?, s:o}", "at", record->at, "method",
					 record->method, "path", record->path, "call", record->call, "status",
					 record->status, "outcome", record->outcome, "fault", record->fault, "ended_at",
					 ended);
}

/* ---- creates and deletes ---- */

/* Note a create or a delete, executed or not, as it was answered; the request knows its word. */
void
sim_ledger_note(SimRequest *request)
{
	bool is_create = strcmp(request->op, "create") == 0;
	const char *id = is_create ? request->pod_id : request->segment;
	const SimPod *pod = sim_pod_find(id);
	const json_t *name = json_object_get(pod != NULL ? pod->spec : request->json, "name");

	request->entry = json_pack(
		"{s:f, s:s, s:s?, s:s?, s:b, s:i, s:s?, s:s, s:s}", "at", sim_now(), "op", request->op,
		"pod", id[0] != '\0' ? id : NULL, "name", json_string_value(name), "executed",
		request->executed, "status", request->status, "fault", sim_fault_name(request), "by",
		request->key_pod != NULL ? "pod" : "account", "request_id", request->request_id);
	json_array_append_new(sim.entries, request->entry);
}

/* Note that a create or a delete took effect after its answer, at this time. */
void
sim_ledger_note_effect(const SimRequest *request)
{
	if (request->entry == NULL || !request->executed)
		return;
	json_object_set_new(request->entry, "executed", json_true());
	json_object_set_new(request->entry, "executed_at", json_real(sim_now()));
	if (request->pod_id[0] != '\0')
		json_object_set_new(request->entry, "pod", json_string(request->pod_id));
}

/* ---- pods, and all together ---- */

/* A pod's line in the ledger. New reference. */
static json_t *
pod_line(const SimPod *pod, double now)
{
	double end = pod->deleted_at > 0 ? pod->deleted_at : now;
	const json_t *env = json_object_get(pod->spec, "env");
	const char *installation = json_string_value(json_object_get(env, "GPU_ORCH_INSTALLATION"));
	const char *op = json_string_value(json_object_get(env, "GPU_ORCH_OP"));

	const SimRecord *record = pod->record;
	json_t *status = record != NULL ? json_integer(record->status) : json_null();

	return json_pack(
		"{s:s, s:O, s:s, s:i, s:s, s:s, s:f, s:f, s:o, s:s?, s:s, s:f, s:f, s:s?, s:s?, s:b, s:o, s:s?}",
		"id", pod->id, "name", json_object_get(pod->spec, "name"), "gpu", pod->gpu->id, "count",
		pod->gpu_count, "data_center", pod->data_center->id, "cloud",
		pod->community ? "COMMUNITY" : "SECURE", "cost_per_hour", pod->cost, "created_at",
		pod->created_at, "deleted_at",
		pod->deleted_at > 0 ? json_real(pod->deleted_at) : json_null(), "ended_by", pod->ended_by,
		"status", sim_pod_status(pod, now), "seconds", end - pod->created_at, "billed",
		sim_billed(pod, 0, now, NULL), "env_installation", installation, "env_op", op, "foreign",
		pod->foreign, "create_status", status, "create_outcome",
		record != NULL ? record->outcome : NULL);
}

/* All requests' lines, oldest first. New reference. */
static json_t *
record_lines(void)
{
	json_t *lines = json_array();

	for (long i = 0; i < sim.n_records; i++)
		json_array_append_new(lines, record_line(sim.records[i]));
	return lines;
}

/*
 * GET /_sim/ledger, with "requests=true" those too. The totals leave the pods of others out.
 */
void
sim_ledger_get(SimRequest *request)
{
	double now = sim_now();
	const char *with_requests = sim_query(request, "requests");
	json_t *lines = json_array();
	double seconds = 0;
	double billed = 0;
	int pods = 0;
	int live = 0;

	for (int i = 0; i < sim.n_pods; i++)
	{
		const SimPod *pod = sim.pods[i];

		json_array_append_new(lines, pod_line(pod, now));
		if (pod->foreign)
			continue;
		pods++;
		live += pod->deleted_at == 0;
		seconds += (pod->deleted_at > 0 ? pod->deleted_at : now) - pod->created_at;
		billed += sim_billed(pod, 0, now, NULL);
	}
	sim_reply(request, 200,
			  json_pack("{s:f, s:O, s:o, s:{s:I, s:I, s:i, s:i, s:f, s:f, s:I}}", "now", now,
						"entries", sim.entries, "pods", lines, "totals", "creates",
						(json_int_t) sim.creates, "deletes", (json_int_t) sim.deletes, "live", live,
						"pods", pods, "seconds", seconds, "billed", billed, "requests",
						(json_int_t) sim.n_records));
	if (with_requests != NULL && strcmp(with_requests, "true") == 0)
		json_object_set_new(request->answer, "requests", record_lines());
}
