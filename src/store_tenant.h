/*
 * store_tenant.h
 *	  Tenants, their limits, and who may submit for whom.
 */
#ifndef GPU_ORCH_STORE_TENANT_H
#define GPU_ORCH_STORE_TENANT_H

#include "spi_util.h"

#define DEFAULT_TENANT 0

typedef enum TenantRoom
{
	TENANT_HAS_ROOM,
	TENANT_FULL,
	TENANT_BUSY					/* another claim has it, and this one may not wait */
} TenantRoom;

extern bool store_tenant_find(const char *name, int32 *tenant);
extern bool store_tenant_allows(int32 tenant, Oid role);
extern bool store_tenant_is_limited(int32 tenant);
extern TenantRoom store_tenant_take_room(int32 tenant, bool *holds);
extern int32 store_tenant_create(const char *name, int32 max_running, TimestampTz now);
extern void store_tenant_set_limit(int32 tenant, int32 max_running);
extern void store_tenant_grant(int32 tenant, const char *role, bool grant);

#endif
