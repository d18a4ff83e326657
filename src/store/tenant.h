/*
 * store/tenant.h
 *	  Tenants, their limits, and who may submit for whom.
 */
#ifndef GPU_ORCH_STORE_TENANT_H
#define GPU_ORCH_STORE_TENANT_H

#include "db/spi_util.h"

#define DEFAULT_TENANT 0

extern char *store_tenant_name(int32 tenant);
extern bool store_tenant_find(const char *name, int32 *tenant);
extern bool store_tenant_allows(int32 tenant, Oid role);
extern void store_tenant_terms(int32 tenant, bool *limited, double *weight);
extern int32 store_tenant_create(const char *name, int32 max_running, Datum weight,
								 TimestampTz now);
extern void store_tenant_change(int32 tenant, int32 max_running, Datum weight);
extern bool store_tenant_grant_holds(Oid role, const char *name, const char *cluster);
extern void store_tenant_grant(int32 tenant, Oid role, const char *name);
extern void store_tenant_revoke(int32 tenant, Oid role, const char *name);
extern void store_tenant_follow_roles(bool bind, TimestampTz now);
extern bool store_tenant_is_dropped(int32 tenant);
extern bool store_tenant_drop(int32 tenant, TimestampTz now);

#endif
