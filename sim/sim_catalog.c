/*
 * sim_catalog.c
 *	  What there is to rent and where: GPU types, data centres, stock, volumes, templates.
 *
 * Prices are those seen in autumn 2026. Only the stock changes while the program runs, and by
 * POST /_sim/stock alone: creating pods does not use it up.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define LENGTH(array) ((int) (sizeof(array) / sizeof((array)[0])))

static const SimDataCenter data_centers[] = {
	{ "EU-RO-1", "EUROPE", true, "STANDARD" },
	{ "EU-SE-1", "EUROPE", true, NULL },
	{ "EUR-IS-1", "EUROPE", false, NULL },
	{ "CA-MTL-3", "NORTH_AMERICA", true, "STANDARD" },
	{ "US-CA-2", "NORTH_AMERICA", true, "HIGH_PERFORMANCE" },
	{ "US-KS-2", "NORTH_AMERICA", true, NULL },
	{ "US-TX-3", "NORTH_AMERICA", true, "STANDARD" },
	{ "AP-JP-1", "ASIA", false, "STANDARD" },
};
#define N_DATA_CENTERS LENGTH(data_centers)

/* id, name, pool, maker, GB, secure, community, two prices, two ceilings, stock by data centre */
static const SimGpu gpus[] = {
	{ "NVIDIA RTX A4000", "RTX A4000", "AMPERE_16", "NVIDIA", 16, true, true, 0.25, 0.17, 8, 8,
	  "HHMMNHMN" },
	{ "NVIDIA RTX A5000", "RTX A5000", "AMPERE_24", "NVIDIA", 24, true, true, 0.27, 0.16, 10, 10,
	  "MMHLNMHN" },
	{ "NVIDIA GeForce RTX 3090", "RTX 3090", "AMPERE_24", "NVIDIA", 24, true, true, 0.50, 0.22, 8,
	  8, "LMMNNMLN" },
	{ "NVIDIA L4", "L4", "AMPERE_24", "NVIDIA", 24, true, false, 0.49, 0, 9, 1, "HMNMMNHM" },
	{ "NVIDIA GeForce RTX 4090", "RTX 4090", "ADA_24", "NVIDIA", 24, true, true, 0.74, 0.34, 8, 9,
	  "HHHMMHHL" },
	{ "NVIDIA GeForce RTX 5090", "RTX 5090", NULL, "NVIDIA", 32, true, true, 0.99, 0.69, 10, 8,
	  "MNHNLMMN" },
	/* A price for a lane that cannot be rented. */
	{ "NVIDIA A40", "A40", "AMPERE_48", "NVIDIA", 48, true, false, 0.49, 0.35, 10, 1, "NHNMNHNN" },
	{ "NVIDIA L40S", "L40S", "ADA_48_PRO", "NVIDIA", 48, true, true, 1.09, 0.79, 8, 8, "NMNNMHHN" },
	{ "NVIDIA A100 80GB PCIe", "A100 PCIe", "AMPERE_80", "NVIDIA", 80, true, true, 1.39, 1.19, 8, 8,
	  "HNNMNMNN" },
	{ "NVIDIA A100-SXM4-40GB", "A100 SXM 40GB", NULL, "NVIDIA", 40, false, true, 0, 1.00, 0, 2,
	  "NNNNNLNN" },
	{ "NVIDIA H100 80GB HBM3", "H100 SXM", "ADA_80_PRO", "NVIDIA", 80, true, true, 3.99, 2.69, 8, 1,
	  "NNMMLMHN" },
	{ "NVIDIA H200", "H200 SXM", "HOPPER_141", "NVIDIA", 141, true, true, 5.29, 3.59, 8, 8,
	  "NNLNMNMN" },
	{ "NVIDIA B200", "B200", NULL, "NVIDIA", 180, true, true, 6.79, 5.98, 8, 0, "NNNNLNNN" },
	{ "AMD Instinct MI300X OAM", "MI300X", NULL, "AMD", 192, true, false, 2.39, 0.50, 8, 0,
	  "LNNNNNNN" },
	{ "unknown", "unknown", NULL, "UNKNOWN", 0, false, false, 0, 0, 0, 0, "NNNNNNNN" },
};
#define N_GPUS LENGTH(gpus)

/* Letters of SimGpu.stock and their words, in rising order. */
static const char levels[] = "NLMH";
static const char *const level_words[] = { "NONE", "LOW", "MEDIUM", "HIGH" };

static const char *const cuda_versions[] = { "12.4", "12.8", "13.0" };

/* Network volumes of the account: an id and its data centre. */
static const char *const volumes[][2] = {
	{ "simvolro01", "EU-RO-1" },
	{ "simvoltx03", "US-TX-3" },
};

static int stock[N_GPUS][N_DATA_CENTERS]; /* place in levels */
static json_t *templates;

/* Fill the stock and make the templates. */
void
sim_catalog_start(void)
{
	for (int g = 0; g < N_GPUS; g++)
		for (int d = 0; d < N_DATA_CENTERS; d++)
			stock[g][d] = (int) (strchr(levels, gpus[g].stock[d]) - levels);
	templates = json_pack("{s:{s:s, s:i, s:[s], s:{s:s}}, s:{s:b}}", "simtemplate", "image",
						  "sim/template:1", "disk", 30, "ports", "8888/http", "env",
						  "FROM_TEMPLATE", "yes", "simserverless", "serverless", true);
}

/* Free what sim_catalog_start() made. */
void
sim_catalog_stop(void)
{
	json_decref(templates);
}

/* A GPU type by its id, or NULL. */
const SimGpu *
sim_gpu_find(const char *id)
{
	for (int g = 0; g < N_GPUS; g++)
		if (strcmp(gpus[g].id, id) == 0)
			return &gpus[g];
	return NULL;
}

/* A data centre by its id, or NULL. */
const SimDataCenter *
sim_data_center_find(const char *id)
{
	for (int d = 0; d < N_DATA_CENTERS; d++)
		if (strcmp(data_centers[d].id, id) == 0)
			return &data_centers[d];
	return NULL;
}

/* The data centre of a network volume, or NULL where there is no such volume. */
const SimDataCenter *
sim_volume_place(const char *volume_id)
{
	for (int v = 0; v < LENGTH(volumes); v++)
		if (strcmp(volumes[v][0], volume_id) == 0)
			return sim_data_center_find(volumes[v][1]);
	return NULL;
}

/* The ids of the data centres that have network volumes, parted by commas. New reference. */
json_t *
sim_volume_data_centers(void)
{
	char list[256] = "";

	for (int d = 0; d < N_DATA_CENTERS; d++)
	{
		size_t len = strlen(list);

		if (data_centers[d].volume_type != NULL)
			snprintf(list + len, sizeof(list) - len, "%s%s", len > 0 ? ", " : "",
					 data_centers[d].id);
	}
	return json_string(list);
}

/* A template by its id, or NULL; borrowed. One with the key "serverless" is not for pods. */
const json_t *
sim_template_find(const char *id)
{
	return json_object_get(templates, id);
}

/*
 * Choose a data centre with stock for a GPU type, among those wanted (an array of ids, NULL or
 * empty: all); of the best stocked ones by chance. NULL if there is none.
 */
const SimDataCenter *
sim_place(const SimGpu *gpu, const json_t *wanted)
{
	const SimDataCenter *best = NULL;
	int best_level = 0;
	int ties = 0;

	for (int d = 0; d < N_DATA_CENTERS; d++)
	{
		int level = stock[gpu - gpus][d];
		bool is_wanted = json_array_size(wanted) == 0;
		json_t *id;
		size_t i;

		json_array_foreach((json_t *) wanted, i, id)
		{
			if (strcmp(json_string_value(id), data_centers[d].id) == 0)
				is_wanted = true;
		}
		if (!is_wanted || level == 0 || level < best_level)
			continue;
		ties = level > best_level ? 1 : ties + 1;
		if (ties == 1 || sim_random_fraction(&sim.random) * ties < 1)
			best = &data_centers[d];
		best_level = level;
	}
	return best;
}

/* ---- the catalog's answers ---- */

static enum MHD_Result
count_key(void *counter, enum MHD_ValueKind kind, const char *key, const char *value)
{
	json_t *seen = counter;

	(void) kind;
	if (value != NULL)
		json_object_set_new(seen, key,
							json_integer(json_integer_value(json_object_get(seen, key)) + 1));
	return MHD_YES;
}

/*
 * Read the query of a catalog request. True with whether stock is asked for; false if the request
 * was answered with what is wrong: a key that is repeated, or include without product.
 */
static bool
read_query(SimRequest *request, const char *include_word, bool needs_product, bool *with_stock)
{
	json_t *seen = json_object();
	const char *key;
	json_t *count;
	const char *include = sim_query(request, "include");
	const char *product = sim_query(request, "product");

	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, count_key, seen);
	json_object_foreach(seen, key, count)
	{
		char text[256];

		if (json_integer_value(count) < 2)
			continue;
		snprintf(text, sizeof(text),
				 "query parameter '%s' is not exploded, but is specified multiple times", key);
		sim_fail(request, 400, text, NULL);
		break;
	}
	json_decref(seen);
	if (request->status != 0)
		return false;
	*with_stock = include != NULL && strcmp(include, include_word) == 0;
	if (include != NULL && !*with_stock)
		sim_fail(request, 400, "include has an unknown value", NULL);
	else if (needs_product && (include != NULL) != (product != NULL))
		sim_fail(request, 400, "include and product must be given together", NULL);
	return request->status == 0;
}

/* How much of a GPU type there is in a data centre for a count and a cloud (NULL: either). */
static int
level_at(int g, int d, long count, const char *cloud)
{
	bool secure = gpus[g].secure && count <= gpus[g].max_secure;
	bool community = gpus[g].community && count <= gpus[g].max_community;

	if (cloud != NULL && strcmp(cloud, "SECURE") == 0)
		community = false;
	if (cloud != NULL && strcmp(cloud, "COMMUNITY") == 0)
		secure = false;
	return secure || community ? stock[g][d] : 0;
}

/* One GPU type as the catalog shows it. */
static json_t *
gpu_json(SimRequest *request, int g, bool with_stock)
{
	const SimGpu *gpu = &gpus[g];
	const char *count = sim_query(request, "count");
	const char *cloud = sim_query(request, "cloud");
	int best = 0;
	json_t *places;
	json_t *versions;
	json_t *json = json_pack(
		"{s:s, s:s, s:s?, s:s, s:i, s:b, s:b, s:{s:f, s:f, s:f}, s:{s:i, s:i}}", "id", gpu->id,
		"name", gpu->name, "pool", gpu->pool, "manufacturer", gpu->manufacturer, "memory",
		gpu->memory_gb, "secure", gpu->secure, "community", gpu->community, "price", "secure",
		gpu->price_secure, "community", gpu->price_community, "serverless", 0.0, "maxCount",
		"secure", gpu->max_secure, "community", gpu->max_community);

	if (!with_stock)
		return json;
	places = json_array();
	for (int d = 0; d < N_DATA_CENTERS; d++)
	{
		int level = level_at(g, d, count != NULL ? strtol(count, NULL, 10) : 1, cloud);

		if (level == 0)
			continue;
		best = level > best ? level : best;
		json_array_append_new(places,
							  json_pack("{s:s, s:s, s:s}", "id", data_centers[d].id, "name",
										data_centers[d].id, "availability", level_words[level]));
	}
	versions = json_array();
	for (int v = 0; v < LENGTH(cuda_versions) && gpu->memory_gb > 0; v++)
		json_array_append_new(
			versions, json_pack("{s:s, s:b}", "version", cuda_versions[v], "available", best > 0));
	json_object_set_new(json, "availability", json_string(level_words[best]));
	json_object_set_new(json, "dataCenters", places);
	json_object_set_new(json, "cudaVersions", versions);
	return json;
}

/* GET /v2/catalog/gpus and /v2/catalog/gpus/{id}. */
void
sim_gpus_get(SimRequest *request)
{
	json_t *list;
	bool with_stock;

	if (!read_query(request, "AVAILABILITY", true, &with_stock))
		return;
	if (request->segment[0] != '\0')
	{
		const SimGpu *gpu = sim_gpu_find(request->segment);

		if (gpu == NULL)
			sim_fail(request, 404, "resource not found", NULL);
		else
			sim_reply(request, 200, gpu_json(request, (int) (gpu - gpus), with_stock));
		return;
	}
	list = json_array();
	for (int g = 0; g < N_GPUS; g++)
		json_array_append_new(list, gpu_json(request, g, with_stock));
	sim_reply(request, 200, json_pack("{s:o}", "gpus", list));
}

/* One data centre as the catalog shows it. */
static json_t *
data_center_json(int d, bool with_stock)
{
	const SimDataCenter *place = &data_centers[d];
	json_t *available;
	json_t *json =
		json_pack("{s:s, s:s, s:s, s:b, s:[s*], s:[]}", "id", place->id, "name", place->id,
				  "region", place->region, "globalNetwork", place->global_network,
				  "networkVolumeTypes", place->volume_type, "compliance");

	if (!with_stock)
		return json;
	available = json_array();
	for (int g = 0; g < N_GPUS; g++)
		if (stock[g][d] > 0)
			json_array_append_new(available,
								  json_pack("{s:s, s:s, s:s}", "id", gpus[g].id, "name",
											gpus[g].name, "availability",
											level_words[stock[g][d]]));
	json_object_set_new(json, "gpuAvailability", available);
	return json;
}

/* GET /v2/catalog/datacenters and /v2/catalog/datacenters/{id}. */
void
sim_data_centers_get(SimRequest *request)
{
	json_t *list;
	bool with_stock;

	if (!read_query(request, "GPU_AVAILABILITY", false, &with_stock))
		return;
	if (request->segment[0] != '\0')
	{
		const SimDataCenter *place = sim_data_center_find(request->segment);

		if (place == NULL)
			sim_fail(request, 404, "resource not found", NULL);
		else
			sim_reply(request, 200, data_center_json((int) (place - data_centers), with_stock));
		return;
	}
	list = json_array();
	for (int d = 0; d < N_DATA_CENTERS; d++)
		json_array_append_new(list, data_center_json(d, with_stock));
	sim_reply(request, 200, json_pack("{s:o}", "dataCenters", list));
}

/* POST /_sim/stock {"gpu": pattern, "data_center": pattern, "level": word}. */
void
sim_stock_post(SimRequest *request)
{
	const char *gpu = "*";
	const char *place = "*";
	const char *word;
	json_error_t error;
	int level = 0;
	int changed = 0;

	if (json_unpack_ex(request->json, &error, JSON_STRICT, "{s?s, s?s, s:s}", "gpu", &gpu,
					   "data_center", &place, "level", &word) != 0)
	{
		sim_fail(request, 400, error.text, NULL);
		return;
	}
	while (level < LENGTH(level_words) && strcmp(level_words[level], word) != 0)
		level++;
	if (level == LENGTH(level_words))
	{
		sim_fail(request, 400, "level must be NONE, LOW, MEDIUM or HIGH", NULL);
		return;
	}
	for (int g = 0; g < N_GPUS; g++)
		for (int d = 0; d < N_DATA_CENTERS; d++)
			if (fnmatch(gpu, gpus[g].id, 0) == 0 && fnmatch(place, data_centers[d].id, 0) == 0)
			{
				stock[g][d] = level;
				changed++;
			}
	sim_reply(request, 200, json_pack("{s:i}", "changed", changed));
}
