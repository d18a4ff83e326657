/*
 * store/pool.h
 *	  Pools.
 */
#ifndef GPU_ORCH_STORE_POOL_H
#define GPU_ORCH_STORE_POOL_H

#include "decide/scale.h"
#include "db/spi_util.h"

typedef struct PoolRow
{
	int32 id;
	char *name;
	char *policy;
	Jsonb *policy_options;
	const char *unreadable; /* what is wrong with the row; NULL: nothing */
	PlanPool plan;			/* what the planner wants to know */
	Jsonb *capabilities;	/* what its workers offer: declared, else last registered, else NULL */
	int64 max_price_micros; /* per hour for one pod; negative: none */
	TimestampTz last_scale_in;
	bool dropped;
	/* how a pod of it is asked for */
	char *image;
	char *cloud_type;
	int32 gpu_count;
	int32 container_disk_gb;
	char *volume_id;
	char *volume_mount_path;
	char *args;
	char *template_id;
	char *registry_id;
	char *min_cuda_version;
	char **ports;
	int n_ports;
	Jsonb *env;
} PoolRow;

extern bool store_pool_find(const char *name, bool lock, int32 *pool);
extern bool store_pool_lock(int32 pool);
extern char *store_pool_name(int32 pool);
extern int32 store_pool_create(const char *name, const char *image, Datum gpu_types,
							   int32 min_workers, int32 max_workers, TimestampTz now);
extern const char *store_pool_set_options(int32 pool, int n, char **names, JsonbValue *values,
										  int *wrong);
extern const char *store_pool_read_policy_options(PlanPool *plan, Jsonb *policy_options);
extern void store_pool_drop(int32 pool, TimestampTz now);
extern int store_pool_list(PoolRow **pools);
extern void store_pool_scaled_in(int32 pool, TimestampTz now);

#endif
