/*
 * sim_meter.c
 *	  Money: the meter, the balance, and the billing history.
 *
 * The meter counts fractions of seconds on the provider's clock, from the create that took effect
 * to the end of the pod, at the pod's cost while it runs and at the price of its disk while it is
 * halted. /v2/billing/pods tells what is old enough.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sim.h"

/* Dollars per GB and month of 730 hours, while the pod is halted. */
#define CONTAINER_DISK_PRICE 0.10
#define VOLUME_DISK_PRICE 0.20
#define HOURS_PER_MONTH 730.0
#define DEFAULT_WINDOW (30 * 86400.0)

/* ---- the meter ---- */

/* Bill a pod at another rate from at on: running, or its disk alone. */
void
sim_meter_switch(SimPod *pod, double at, bool running)
{
	const json_t *volume = json_object_get(json_object_get(pod->spec, "mounts"), "persistent");
	double disk = (double) json_integer_value(json_object_get(pod->spec, "disk"));
	double size = (double) json_integer_value(json_object_get(volume, "size"));
	double stopped_rate =
		(disk * CONTAINER_DISK_PRICE + size * VOLUME_DISK_PRICE) / HOURS_PER_MONTH;

	sim_meter_stop(pod, at);
	pod->segments = realloc(pod->segments, sizeof(SimSegment) * (size_t) (pod->n_segments + 1));
	if (pod->segments == NULL)
		abort();
	pod->segments[pod->n_segments++] = (SimSegment){
		.from = at, .to = INFINITY, .rate = running ? pod->cost : stopped_rate, .running = running
	};
}

/* End the billing of a pod. */
void
sim_meter_stop(SimPod *pod, double at)
{
	if (pod->n_segments > 0 && isinf(pod->segments[pod->n_segments - 1].to))
		pod->segments[pod->n_segments - 1].to = at;
}

/* Dollars that a pod cost between two times; those for the disk of a halted pod in *disk. */
double
sim_billed(const SimPod *pod, double from, double to, double *disk)
{
	double billed = 0;
	double for_disk = 0;

	for (int i = 0; i < pod->n_segments; i++)
	{
		const SimSegment *segment = &pod->segments[i];
		double seconds = fmin(segment->to, to) - fmax(segment->from, from);

		if (seconds <= 0)
			continue;
		billed += seconds * segment->rate / 3600;
		if (!segment->running)
			for_disk += seconds * segment->rate / 3600;
	}
	if (disk != NULL)
		*disk = for_disk;
	return billed;
}

/* Dollars that the whole account has spent since the start. */
static double
all_billed(double now)
{
	double billed = sim.billed_ended;
	SimPod *pod;

	TAILQ_FOREACH(pod, &sim.live, link)
	{
		billed += sim_billed(pod, 0, now, NULL);
	}
	return billed;
}

/* Dollars that are left. */
double
sim_balance(double now)
{
	return sim.balance - (all_billed(now) - sim.balance_billed);
}

/* Set the balance from now on. */
void
sim_balance_set(double balance)
{
	sim.balance = balance;
	sim.balance_billed = all_billed(sim_now());
}

/* Dollars per hour that the account spends at the moment. */
double
sim_spend_per_hour(void)
{
	double rate = 0;
	SimPod *pod;

	TAILQ_FOREACH(pod, &sim.live, link)
	{
		rate += pod->segments[pod->n_segments - 1].rate;
	}
	return rate;
}

/* ---- billing history ---- */

/* The bucket that holds a time: its begin, and its end in *end. An unknown size is a day. */
static double
bucket_start(double time, const char *size, double *end)
{
	time_t seconds = (time_t) floor(time);
	struct tm start;
	struct tm next;

	gmtime_r(&seconds, &start);
	start.tm_sec = start.tm_min = 0;
	if (strcmp(size, "hour") != 0)
		start.tm_hour = 0;
	if (strcmp(size, "week") == 0)
		start.tm_mday -= (start.tm_wday + 6) % 7;
	if (strcmp(size, "month") == 0 || strcmp(size, "year") == 0)
		start.tm_mday = 1;
	if (strcmp(size, "year") == 0)
		start.tm_mon = 0;
	next = start;
	if (strcmp(size, "hour") == 0)
		next.tm_hour++;
	else if (strcmp(size, "week") == 0)
		next.tm_mday += 7;
	else if (strcmp(size, "month") == 0)
		next.tm_mon++;
	else if (strcmp(size, "year") == 0)
		next.tm_year++;
	else
		next.tm_mday++;
	*end = (double) timegm(&next);
	return (double) timegm(&start);
}

/* The query of a billing request, resolved. */
typedef struct BillingQuery
{
	const char *pod_id; /* NULL: all */
	const char *size;
	double from;
	double to;
} BillingQuery;

/* Read the query; false if the request was answered with what is wrong with it. */
static bool
read_billing_query(SimRequest *request, BillingQuery *query)
{
	const char *start = sim_query(request, "startTime");
	const char *end = sim_query(request, "endTime");
	const char *last = sim_query(request, "lastN");
	const char *size = sim_query(request, "bucketSize");
	char *rest = "";
	long buckets = last != NULL ? strtol(last, &rest, 10) : 1;
	double bucket_end;

	query->pod_id = sim_query(request, "podId");
	query->size = size != NULL ? size : "day";
	query->to = sim_now();
	query->from = query->to - DEFAULT_WINDOW;
	if (!sim_word_in(query->size, "hour day week month year") || *rest != '\0' || buckets < 1 ||
		buckets > 10000 || (start != NULL && !sim_time_parse(start, &query->from)) ||
		(end != NULL && !sim_time_parse(end, &query->to)))
		sim_fail(request, 422, "Request validation failed.",
				 json_pack("[s]", "a query parameter is malformed"));
	else if (last != NULL && (start != NULL || end != NULL))
		sim_fail(request, 400, "lastN and startTime or endTime exclude each other", NULL);
	if (request->status != 0)
		return false;
	if (last == NULL)
		return true;
	query->from = bucket_start(query->to, query->size, &bucket_end);
	while (--buckets > 0)
		query->from = bucket_start(query->from - 1, query->size, &bucket_end);
	return true;
}

/* The four amounts of a sum of which some is for disk; added to record. */
static void
set_amounts(json_t *record, double total, double disk)
{
	json_object_set_new(record, "totalAmount", json_real(total));
	json_object_set_new(record, "gpuAmount", json_real(total - disk));
	json_object_set_new(record, "cpuAmount", json_real(0));
	json_object_set_new(record, "diskAmount", json_real(disk));
}

/* GET /v2/billing/pods: what is older than the lag, in buckets. */
void
sim_billing_get(SimRequest *request)
{
	BillingQuery query;
	json_t *records;
	json_t *totals;
	json_t *metadata;
	double settled;
	double total = 0;
	double total_disk = 0;
	int unique = 0;

	if (!read_billing_query(request, &query))
		return;
	settled = fmin(query.to, sim_now() - sim.billing_lag);
	records = json_array();
	for (int i = 0; i < sim.n_pods; i++)
	{
		const SimPod *pod = sim.pods[i];
		size_t before = json_array_size(records);
		double last = fmin(pod->deleted_at > 0 ? pod->deleted_at : settled, settled);
		double end;

		if (query.pod_id != NULL && strcmp(query.pod_id, pod->id) != 0)
			continue;
		for (double at = fmax(query.from, pod->created_at); at < last; at = end)
		{
			double start = bucket_start(at, query.size, &end);
			double disk;
			double amount = sim_billed(pod, fmax(start, query.from), fmin(end, settled), &disk);
			json_t *record = json_pack("{s:o, s:o, s:s}", "startTime", sim_time_json(start),
									   "endTime", sim_time_json(end), "podId", pod->id);

			set_amounts(record, amount, disk);
			json_array_append_new(records, record);
			total += amount;
			total_disk += disk;
		}
		unique += json_array_size(records) > before;
	}
	totals = json_object();
	set_amounts(totals, total, total_disk);
	metadata = json_pack(
		"{s:{s:o, s:o, s:s, s:s?}, s:i, s:i, s:o}", "query", "startTime", sim_time_json(query.from),
		"endTime", sim_time_json(query.to), "bucketSize", query.size, "podId", query.pod_id,
		"recordCount", (int) json_array_size(records), "uniquePodCount", unique, "totals", totals);
	sim_reply(request, 200, json_pack("{s:o, s:o}", "records", records, "metadata", metadata));
}
