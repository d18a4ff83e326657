/*
 * sim_create.c
 *	  Creating a pod: the rules that tie properties to each other, placement, balance, price.
 *
 * A refusal leaves nothing behind. The order of the checks is the provider's: form, template,
 * cross-field rules, placement, money.
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define SPEND_LIMIT "This pod would exceed the spend limit of your account."

/* A CUDA version as one number: major x 1000 + minor. */
static int
cuda_number(const char *version)
{
	int major = 0;
	int minor = 0;

	sscanf(version, "%d.%d", &major, &minor);
	return major * 1000 + minor;
}

/* The newest CUDA version of our hosts that a request allows, or NULL. */
static const char *
choose_cuda(const json_t *gpu)
{
	static const char *const host_versions[] = { "13.0", "12.8", "12.4" };
	const json_t *allowed = json_object_get(gpu, "allowedCudaVersions");
	const char *least = json_string_value(json_object_get(gpu, "minCudaVersion"));

	for (size_t v = 0; v < sizeof(host_versions) / sizeof(host_versions[0]); v++)
	{
		bool fits = json_array_size(allowed) == 0;
		json_t *version;
		size_t i;

		json_array_foreach((json_t *) allowed, i, version)
		{
			if (strcmp(json_string_value(version), host_versions[v]) == 0)
				fits = true;
		}
		if (fits && (least == NULL || cuda_number(least) <= cuda_number(host_versions[v])))
			return host_versions[v];
	}
	return NULL;
}

/*
 * The wish with what its template adds: explicit properties win, env is merged by key. New
 * reference, or NULL with the request answered.
 */
static json_t *
with_template(SimRequest *request)
{
	const char *id = json_string_value(json_object_get(request->json, "templateId"));
	const json_t *template;
	json_t *wish;
	json_t *env;

	if (id == NULL)
		return json_incref(request->json);
	template = sim_template_find(id);
	if (template == NULL)
	{
		sim_fail(request, 404, "resource not found", NULL);
		return NULL;
	}
	if (json_object_get(template, "serverless") != NULL)
	{
		sim_fail(request, 422, "A serverless template cannot be used for a pod.", NULL);
		return NULL;
	}
	wish = json_deep_copy(template);
	env = json_incref(json_object_get(wish, "env"));
	json_object_update(wish, request->json);
	if (json_object_get(request->json, "env") != NULL)
		json_object_update(env, json_object_get(request->json, "env"));
	json_object_set_new(wish, "env", env);
	return wish;
}

/* The data centre that a network mount binds a pod to; NULL with a refusal if there is none. */
static const SimDataCenter *
volume_place(SimRequest *request, const json_t *wish, const json_t *network)
{
	const char *id = json_string_value(json_object_get(json_array_get(network, 0), "volumeId"));
	const SimDataCenter *place = sim_volume_place(id);
	const json_t *wanted = json_object_get(wish, "dataCenterIds");
	bool is_wanted = json_array_size(wanted) == 0;
	json_t *refusal = NULL;
	json_t *element;
	size_t i;

	if (place == NULL)
	{
		sim_fail(request, 404, "resource not found", NULL);
		return NULL;
	}
	json_array_foreach((json_t *) wanted, i, element)
	{
		const SimDataCenter *other = sim_data_center_find(json_string_value(element));

		if (other == place)
			is_wanted = true;
		if (other != NULL && other->volume_type == NULL)
		{
			json_t *having = sim_volume_data_centers();

			refusal = json_sprintf("Data center %s has no network volumes; those that have: %s",
								   other->id, json_string_value(having));
			json_decref(having);
			break;
		}
	}
	if (refusal == NULL && !is_wanted)
		refusal =
			json_sprintf("Network volume %s is in data center %s, where the pod may not be placed",
						 id, place->id);
	if (refusal == NULL)
		return place;
	sim_fail(request, 400, json_string_value(refusal), NULL);
	json_decref(refusal);
	return NULL;
}

/* The rules between properties; true if they hold, otherwise the request is answered. */
static bool
check_cross(SimRequest *request, const json_t *wish)
{
	const json_t *gpu = json_object_get(wish, "gpu");
	const json_t *cpu = json_object_get(wish, "cpu");
	const json_t *mounts = json_object_get(wish, "mounts");
	json_int_t vcpus = json_integer_value(json_object_get(cpu, "vcpuCount"));

	if ((gpu == NULL) == (cpu == NULL))
		sim_fail(request, 400, "exactly one of gpu and cpu must be set", NULL);
	else if (json_object_get(mounts, "persistent") != NULL &&
			 json_array_size(json_object_get(mounts, "network")) > 0)
		sim_fail(request, 400, "mounts.persistent and mounts.network exclude each other", NULL);
	else if (json_array_size(json_object_get(gpu, "allowedCudaVersions")) > 0 &&
			 json_object_get(gpu, "minCudaVersion") != NULL)
		sim_fail(request, 400, "gpu.allowedCudaVersions and gpu.minCudaVersion exclude each other",
				 NULL);
	else if (cpu != NULL && (vcpus & (vcpus - 1)) != 0)
		sim_fail(request, 400, "cpu.vcpuCount must be a power of two", NULL);
	return request->status == 0;
}

/* The properties that are answered as they were asked for, with the defaults. New reference. */
static json_t *
make_spec(const json_t *wish)
{
	json_t *spec = json_pack("{s:s, s:s, s:s, s:i, s:{}, s:[], s:{}, s:n, s:b}", "name", "",
							 "image", "", "args", "", "disk", 20, "mounts", "ports", "env",
							 "registry", "globalNetworking", false);

	json_object_update_existing(spec, (json_t *) wish);
	return spec;
}

/* Where a pod goes; bound (or NULL) is its volume's data centre. NULL: there is no capacity. */
static const SimDataCenter *
choose_place(const json_t *wish, const SimGpu *gpu, const SimDataCenter *bound)
{
	const SimDataCenter *place;
	json_t *only;

	if (bound == NULL)
		return sim_place(gpu, json_object_get(wish, "dataCenterIds"));
	only = json_pack("[s]", bound->id);
	place = sim_place(gpu, only);
	json_decref(only);
	return place;
}

/* Create what a checked body, its template included, wishes for; or answer why not. */
void
sim_create_wished(SimRequest *request, const json_t *wish)
{
	const json_t *gpu_wish = json_object_get(wish, "gpu");
	const json_t *network = json_object_get(json_object_get(wish, "mounts"), "network");
	const char *id = json_string_value(json_object_get(gpu_wish, "id"));
	json_int_t count = json_integer_value(json_object_get(gpu_wish, "count"));
	const char *cloud = json_string_value(json_object_get(wish, "cloud"));
	bool community = cloud != NULL && strcmp(cloud, "COMMUNITY") == 0;
	const char *cuda = choose_cuda(gpu_wish);
	const SimGpu *gpu = id != NULL ? sim_gpu_find(id) : NULL;
	const SimDataCenter *bound = NULL;
	const SimDataCenter *place = NULL;
	double price;
	SimPod *pod;

	if (!check_cross(request, wish))
		return;
	if (json_array_size(network) > 0 && (bound = volume_place(request, wish, network)) == NULL)
		return;

	/* There are no CPU pods here, and a count that is left out matches nothing. */
	if (gpu != NULL && count >= 1 && cuda != NULL && (community ? gpu->community : gpu->secure) &&
		count <= (community ? gpu->max_community : gpu->max_secure))
		place = choose_place(wish, gpu, bound);
	if (place == NULL)
	{
		sim_fail(request, 400, NO_CAPACITY, NULL);
		return;
	}
	price = (community ? gpu->price_community : gpu->price_secure) * (double) count;
	if (sim_balance(sim_now()) < price)
	{
		sim_fail(request, 402, NO_BALANCE, NULL);
		return;
	}
	if (sim.spend_limit > 0 && sim_spend_per_hour() + price > sim.spend_limit)
	{
		sim_fail(request, 402, SPEND_LIMIT, NULL);
		return;
	}

	pod = sim_pod_new(gpu, (int) count, place, community, make_spec(wish));
	snprintf(pod->cuda, sizeof(pod->cuda), "%s", cuda);
	pod->record = request->record;
	sim_fault_pod(request, pod);
	request->executed = true;
	memcpy(request->pod_id, pod->id, sizeof(pod->id));
	sim.creates++;
	sim_reply(request, 201, sim_pod_json(pod, sim_now()));
}

/* POST /v2/pods. */
void
sim_pods_create(SimRequest *request)
{
	json_t *wish;

	if (!sim_schema_create(request))
		return;
	wish = with_template(request);
	if (wish == NULL)
		return;
	sim_create_wished(request, wish);
	json_decref(wish);
}

/*
 * Make a pod of someone else in the account, with "gpu", "count" and "env" if they are wanted. NULL
 * if the GPU type is unknown or nowhere in stock.
 */
SimPod *
sim_foreign_pod(const json_t *wish, const char *name)
{
	const char *id = json_string_value(json_object_get(wish, "gpu"));
	json_int_t count = json_integer_value(json_object_get(wish, "count"));
	const SimGpu *gpu = sim_gpu_find(id != NULL ? id : "NVIDIA GeForce RTX 4090");
	const SimDataCenter *place = gpu != NULL ? sim_place(gpu, NULL) : NULL;
	json_t *spec;
	SimPod *pod;

	if (place == NULL)
		return NULL;
	spec = make_spec(wish);
	json_object_set_new(spec, "name", json_string(name));
	json_object_set_new(spec, "image", json_string("someone/else:1"));
	pod = sim_pod_new(gpu, count > 0 ? (int) count : 1, place, !gpu->secure, spec);
	pod->foreign = true;
	return pod;
}
