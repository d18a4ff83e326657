/*-------------------------------------------------------------------------
 *
 * worker_gpu.c
 *		What gpu-orch-worker tells about its machine: capabilities at
 *		registration, measurements with each heartbeat.
 *
 * NVIDIA's management library is loaded at run time where it is present; the
 * few prototypes below are all that is used of it, and no header of it is
 * needed.  Called from one thread at a time.  Must not call the database.
 *
 *-------------------------------------------------------------------------
 */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "worker.h"

#define MAX_GPUS 64

typedef void *NvmlDevice;

typedef struct NvmlMemory
{
	unsigned long long total; /* bytes */
	unsigned long long free;
	unsigned long long used;
} NvmlMemory;

typedef struct NvmlUtilization
{
	unsigned int gpu; /* percent of time */
	unsigned int memory;
} NvmlUtilization;

/* Each returns 0 for success. */
static struct
{
	int (*init)(void);
	int (*count)(unsigned int *count);
	int (*handle)(unsigned int index, NvmlDevice *device);
	int (*name)(NvmlDevice device, char *name, unsigned int length);
	int (*memory)(NvmlDevice device, NvmlMemory *memory);
	int (*utilization)(NvmlDevice device, NvmlUtilization *utilization);
	int (*temperature)(NvmlDevice device, int sensor, unsigned int *celsius);
	int (*power)(NvmlDevice device, unsigned int *milliwatts);
} nvml;

static NvmlDevice devices[MAX_GPUS];
static unsigned int device_count = 0;

/*
 * Load the library and find the devices; without them device_count stays 0.
 * The library stays loaded until the program ends.
 */
static void
gpu_init(void)
{
	const struct
	{
		const char *symbol;
		void *slot;
	} symbols[] = {
		{ "nvmlInit_v2", &nvml.init },
		{ "nvmlDeviceGetCount_v2", &nvml.count },
		{ "nvmlDeviceGetHandleByIndex_v2", &nvml.handle },
		{ "nvmlDeviceGetName", &nvml.name },
		{ "nvmlDeviceGetMemoryInfo", &nvml.memory },
		{ "nvmlDeviceGetUtilizationRates", &nvml.utilization },
		{ "nvmlDeviceGetTemperature", &nvml.temperature },
		{ "nvmlDeviceGetPowerUsage", &nvml.power },
	};
	void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	unsigned int found;
	unsigned int i;

	if (library == NULL)
		return;
	for (i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++)
	{
		void *function = dlsym(library, symbols[i].symbol);

		if (function == NULL)
		{
			log_line("libnvidia-ml.so.1 has no %s: no GPU is reported", symbols[i].symbol);
			return;
		}
		memcpy(symbols[i].slot, &function, sizeof(function));
	}
	if (nvml.init() != 0 || nvml.count(&found) != 0)
	{
		log_line("libnvidia-ml.so.1 does not work: no GPU is reported");
		return;
	}
	for (i = 0; i < found && device_count < MAX_GPUS; i++)
		if (nvml.handle(i, &devices[device_count]) == 0)
			device_count++;
}

/*
 * The model as requirements name it: without the maker's and the family's
 * name.  Points into the given string.
 */
static const char *
gpu_short_name(const char *name)
{
	if (strncmp(name, "NVIDIA ", 7) == 0)
		name += 7;
	if (strncmp(name, "GeForce ", 8) == 0)
		name += 8;
	return name;
}

/*
 * The memory that a device is sold with, in GB: the library leaves out what the
 * device keeps for itself, up to a sixteenth of it where that corrects errors
 * (an L4 of 24 GB says 22.5 GiB).  A size that is not sold, as of a slice of a
 * device, is rounded to the nearest.
 */
static long
gpu_named_memory(unsigned long long bytes)
{
	static const long named[] = { 4,  6,  8,  10, 11, 12, 16,  20,	24,	 32,
								  40, 48, 64, 80, 94, 96, 141, 180, 192, 288 };
	double gib = bytes / (1024.0 * 1024.0 * 1024.0);
	size_t i;

	for (i = 0; i < sizeof(named) / sizeof(named[0]); i++)
		if (gib <= named[i] && gib >= named[i] * 0.93)
			return named[i];
	return lround(gib);
}

/*
 * Add what the devices say to the hardware that was given; what was given
 * wins.  Memory is that of the smallest device.
 */
static void
gpu_hardware(json_t *hardware)
{
	char name[128] = "";
	NvmlMemory memory;
	unsigned long long smallest = 0;
	json_t *found = json_object();
	unsigned int i;

	for (i = 0; i < device_count; i++)
		if (nvml.memory(devices[i], &memory) == 0 && (smallest == 0 || memory.total < smallest))
			smallest = memory.total;

	json_object_set_new(found, "gpu_count", json_integer(device_count));
	if (smallest > 0)
		json_object_set_new(found, "gpu_memory_gb", json_integer(gpu_named_memory(smallest)));
	if (nvml.name(devices[0], name, sizeof(name)) == 0)
		json_object_set_new(found, "gpu_model", json_string(gpu_short_name(name)));
	json_object_update_missing(hardware, found);
	json_decref(found);
}

/*
 * The capabilities to register, as malloc'd JSON text: those given (an object
 * that this takes over), the kinds as services when there are any (an array
 * that this takes over), and the GPUs found.
 */
char *
gpu_capabilities(json_t *given, json_t *kinds)
{
	json_t *hardware;
	char *text;

	gpu_init();
	if (json_array_size(kinds) > 0)
		json_object_set(given, "services", kinds);
	if (device_count > 0)
	{
		if (json_object_get(given, "hardware") == NULL)
			json_object_set_new(given, "hardware", json_object());
		hardware = json_object_get(given, "hardware");
		if (json_is_object(hardware))
			gpu_hardware(hardware);
	}
	text = json_dumps(given, JSON_COMPACT);
	json_decref(given);
	json_decref(kinds);
	return text;
}

/*
 * What one device measures now; a value it does not give is left out.
 */
static json_t *
gpu_measure(unsigned int index)
{
	json_t *gpu = json_object();
	NvmlMemory memory;
	NvmlUtilization utilization;
	unsigned int value;

	json_object_set_new(gpu, "index", json_integer(index));
	if (nvml.utilization(devices[index], &utilization) == 0)
		json_object_set_new(gpu, "utilization_percent", json_integer(utilization.gpu));
	if (nvml.memory(devices[index], &memory) == 0)
	{
		json_object_set_new(gpu, "memory_used_bytes", json_integer(memory.used));
		json_object_set_new(gpu, "memory_total_bytes", json_integer(memory.total));
	}
	if (nvml.temperature(devices[index], 0, &value) == 0)
		json_object_set_new(gpu, "temperature_celsius", json_integer(value));
	if (nvml.power(devices[index], &value) == 0)
		json_object_set_new(gpu, "power_watts", json_real(value / 1000.0));
	return gpu;
}

/*
 * The measurements that go with a heartbeat, as malloc'd JSON text.  running
 * is the number of tasks held; the disk is that of the working directory.
 */
char *
gpu_stats(int running)
{
	json_t *stats = json_object();
	struct statvfs disk;
	char *text;
	unsigned int i;

	json_object_set_new(stats, "running", json_integer(running));
	json_object_set_new(stats, "concurrency", json_integer(worker.opt.concurrency));
	if (statvfs(".", &disk) == 0)
		json_object_set_new(stats, "disk_free_bytes",
							json_integer((json_int_t) disk.f_bavail * disk.f_frsize));
	if (device_count > 0)
	{
		json_t *gpus = json_array();

		for (i = 0; i < device_count; i++)
			json_array_append_new(gpus, gpu_measure(i));
		json_object_set_new(stats, "gpus", gpus);
	}
	text = json_dumps(stats, JSON_COMPACT);
	json_decref(stats);
	return text;
}
