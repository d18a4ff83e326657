/*
 * store/tenant.c
 *	  Tenants, their limits, and who may submit for whom: all access to tenant and
 *	  tenant_grant.
 *
 * The default tenant is unlimited and has no row, so that its submitters never
 * meet on one.
 *
 * A grant is to a role, not to its name: it survives a rename, and a role that is made
 * anew under the name does not get it. A column of type regrole would do that and keep
 * pg_upgrade from working, so a row holds the role's oid, its name, and the cluster. The
 * oid alone counts in that cluster. In another one, as after a dump is restored or
 * pg_upgrade, the oid must have the name as well. The leader writes down names that have
 * changed and removes grants to roles that are gone.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "db/ext_guard.h"
#include "miscadmin.h"
#include "store/event.h"
#include "store/tenant.h"
#include "utils/acl.h"

/* The cluster in which roles have their oids, as text. */
static char *
this_cluster(void)
{
	return psprintf(UINT64_FORMAT, GetSystemIdentifier());
}

/* The id of a tenant by name; false if there is none. */
bool
store_tenant_find(const char *name, int32 *tenant)
{
	static SpiQuery query = {
		"SELECT id FROM gpu_orch.tenant WHERE name = $1 AND dropped_at IS NULL"
	};
	static SpiQuery older = { "SELECT id FROM gpu_orch.tenant WHERE name = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	if (strcmp(name, "default") == 0)
	{
		*tenant = DEFAULT_TENANT;
		return true;
	}
	spi_begin();
	spi_arg_text(&args, name);
	found = spi_read(ext_is_older_schema() ? &older : &query, &args, 1) == 1;
	if (found)
		*tenant = spi_int4(0, 1);
	spi_end();
	return found;
}

/* The name of a tenant, allocated in the current memory context. */
char *
store_tenant_name(int32 tenant)
{
	static SpiQuery query = { "SELECT name FROM gpu_orch.tenant WHERE id = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	char *name = "default";

	if (tenant == DEFAULT_TENANT)
		return name;
	spi_begin();
	spi_arg_int4(&args, tenant);
	if (spi_read(&query, &args, 1) == 1)
		name = spi_text(0, 1);
	spi_end();
	return name;
}

/*
 * Whether a grant to the role of this oid, which had this name in that cluster, means a role
 * that is there now.
 */
bool
store_tenant_grant_holds(Oid role, const char *name, const char *cluster)
{
	char *now = GetUserNameFromId(role, true);

	return now != NULL && (strcmp(now, name) == 0 || strcmp(cluster, this_cluster()) == 0);
}

/*
 * Whether a role may submit for a tenant: for the default one everybody who may
 * submit at all, for another one who was granted it or is an operator.
 */
bool
store_tenant_allows(int32 tenant, Oid role)
{
	static SpiQuery query = {
		"SELECT role::text, role_id::bigint, cluster FROM gpu_orch.tenant_grant WHERE tenant = $1"
	};
	static SpiQuery older = { "SELECT role::text FROM gpu_orch.tenant_grant WHERE tenant = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	Oid operators = get_role_oid("gpu_orch_operator", true);
	bool by_name;
	bool allowed = false;
	uint64 n;

	if (tenant == DEFAULT_TENANT || (OidIsValid(operators) && has_privs_of_role(role, operators)))
		return true;
	by_name = ext_is_older_schema();
	spi_begin();
	spi_arg_int4(&args, tenant);
	n = spi_read(by_name ? &older : &query, &args, 0);
	for (uint64 i = 0; i < n && !allowed; i++)
	{
		Oid granted = by_name ? get_role_oid(spi_text(i, 1), true) : (Oid) spi_int8(i, 2);

		if (!by_name && !store_tenant_grant_holds(granted, spi_text(i, 1), spi_text(i, 3)))
			continue;
		allowed = OidIsValid(granted) && has_privs_of_role(role, granted);
	}
	spi_end();
	return allowed;
}

/* Whether a tenant may run only so many tasks at once, and its share. */
void
store_tenant_terms(int32 tenant, bool *limited, double *weight)
{
	static SpiQuery query = {
		"SELECT max_running IS NOT NULL, (weight * 1000000)::bigint FROM gpu_orch.tenant WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	*limited = false;
	*weight = 1;
	if (tenant == DEFAULT_TENANT)
		return;
	spi_begin();
	spi_arg_int4(&args, tenant);
	if (spi_read(&query, &args, 1) == 1)
	{
		*limited = spi_bool(0, 1);
		*weight = spi_int8(0, 2) / 1e6;
	}
	spi_end();
}

/* Add a tenant; max_running below 0 means unlimited. A taken name is a 23505. */
int32
store_tenant_create(const char *name, int32 max_running, Datum weight, TimestampTz now)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.tenant (name, max_running, weight, created_at)"
							  " VALUES ($1, $2, $3, $4) RETURNING id" };
	SpiArgs args = SPI_ARGS_INIT;
	int32 id;

	spi_begin();
	spi_arg_text(&args, name);
	spi_arg(&args, INT4OID, Int32GetDatum(max_running), max_running < 0);
	spi_arg(&args, NUMERICOID, weight, false);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "adding a tenant");
	id = spi_int4(0, 1);
	spi_end();
	return id;
}

/* Whether a tenant was dropped. The schema before this one drops none. */
bool
store_tenant_is_dropped(int32 tenant)
{
	static SpiQuery query = {
		"SELECT 1 FROM gpu_orch.tenant WHERE id = $1 AND dropped_at IS NOT NULL"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool dropped;

	if (ext_is_older_schema())
		return false;
	spi_begin();
	spi_arg_int4(&args, tenant);
	dropped = spi_read(&query, &args, 1) == 1;
	spi_end();
	return dropped;
}

/* Change a tenant's limit, below 0 for none, and its weight unless that is (Datum) 0. */
void
store_tenant_change(int32 tenant, int32 max_running, Datum weight)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.tenant SET max_running = $2, weight = coalesce($3, weight) WHERE id = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, tenant);
	spi_arg(&args, INT4OID, Int32GetDatum(max_running), max_running < 0);
	spi_arg(&args, NUMERICOID, weight, weight == (Datum) 0);
	spi_run_one(&query, &args, "changing a tenant");
	spi_end();
}

/* Let a role submit for a tenant. Repeating it changes nothing. */
void
store_tenant_grant(int32 tenant, Oid role, const char *name)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.tenant_grant (tenant, role_id, role, cluster) VALUES ($1, $2, $3, $4) "
		"ON CONFLICT (tenant, role_id) DO UPDATE SET role = $3, cluster = $4"
	};
	static SpiQuery older = {
		"INSERT INTO gpu_orch.tenant_grant (tenant, role) VALUES ($1, $2) ON CONFLICT DO NOTHING"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool by_name = ext_is_older_schema();

	spi_begin();
	spi_arg_int4(&args, tenant);
	if (!by_name)
		spi_arg(&args, OIDOID, ObjectIdGetDatum(role), false);
	spi_arg_text(&args, name);
	if (!by_name)
		spi_arg_text(&args, this_cluster());
	spi_run(by_name ? &older : &query, &args);
	spi_end();
}

/*
 * Let a role submit for a tenant no longer. The role may be gone, or be another one's in the
 * cluster that the grant came from: then the grant goes that bears the name and is not in force.
 */
void
store_tenant_revoke(int32 tenant, Oid role, const char *name)
{
	static SpiQuery query = {
		"DELETE FROM gpu_orch.tenant_grant WHERE tenant = $1 AND (role_id = $2"
		" OR role = $3 AND NOT gpu_orch.grant_holds(role_id, role, cluster))"
	};
	static SpiQuery older = { "DELETE FROM gpu_orch.tenant_grant WHERE tenant = $1 AND role = $2" };
	SpiArgs args = SPI_ARGS_INIT;
	bool by_name = ext_is_older_schema();

	spi_begin();
	spi_arg_int4(&args, tenant);
	if (!by_name)
		spi_arg(&args, OIDOID, ObjectIdGetDatum(role), false);
	spi_arg_text(&args, name);
	spi_run(by_name ? &older : &query, &args);
	spi_end();
}

/*
 * Follow the roles: write down the names that they have now, and remove the grants to those
 * that are gone from this cluster. With bind, grants of another cluster become those of the
 * roles that have the names here.
 */
void
store_tenant_follow_roles(bool bind, TimestampTz now)
{
	static SpiQuery rebind = {
		"UPDATE gpu_orch.tenant_grant g SET role_id = r.oid, cluster = $1 FROM pg_catalog.pg_roles r "
		"WHERE r.rolname = g.role AND NOT gpu_orch.grant_holds(g.role_id, g.role, g.cluster) "
		"AND g.cluster <> $1 AND NOT EXISTS (SELECT 1 FROM gpu_orch.tenant_grant x"
		" WHERE x.tenant = g.tenant AND x.role_id = r.oid)"
	};
	static SpiQuery rename = {
		"UPDATE gpu_orch.tenant_grant g SET role = r.rolname, cluster = $1 FROM pg_catalog.pg_roles r "
		"WHERE r.oid = g.role_id AND (r.rolname <> g.role OR g.cluster <> $1) "
		"AND gpu_orch.grant_holds(g.role_id, g.role, g.cluster)"
	};
	static SpiQuery forget = {
		"DELETE FROM gpu_orch.tenant_grant g USING gpu_orch.tenant t "
		"WHERE t.id = g.tenant AND g.cluster = $1"
		" AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r WHERE r.oid = g.role_id) "
		"RETURNING t.name, g.role::text"
	};
	SpiArgs args = SPI_ARGS_INIT;
	char **gone;
	uint64 n;

	if (ext_is_older_schema())
		return;
	spi_begin();
	spi_arg_text(&args, this_cluster());
	if (bind)
		spi_run(&rebind, &args);
	spi_run(&rename, &args);
	n = spi_run(&forget, &args);
	gone = palloc(2 * n * sizeof(char *) + 1);
	for (uint64 i = 0; i < 2 * n; i++)
		gone[i] = spi_text(i / 2, 1 + i % 2);
	for (uint64 i = 0; i < n; i++)
		store_event("tenant_revoked", gone[2 * i], store_detail("role", gone[2 * i + 1]), now);
	spi_end();
}

/*
 * Drop a tenant with its grants; its row stays, for what its tasks did and cost. False, and
 * nothing done, while a task of it waits or runs.
 */
bool
store_tenant_drop(int32 tenant, TimestampTz now)
{
	static SpiQuery drop = {
		"UPDATE gpu_orch.tenant SET dropped_at = $2 WHERE id = $1 "
		"AND NOT EXISTS (SELECT 1 FROM gpu_orch.waiting w WHERE w.tenant = $1) "
		"AND NOT EXISTS (SELECT 1 FROM gpu_orch.ready_queue r WHERE r.tenant = $1) "
		"AND NOT EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.tenant = $1)"
	};
	static SpiQuery revoke = { "DELETE FROM gpu_orch.tenant_grant WHERE tenant = $1" };
	SpiArgs tenant_arg = SPI_ARGS_INIT;
	SpiArgs args = SPI_ARGS_INIT;
	bool dropped;

	spi_begin();
	spi_arg_int4(&args, tenant);
	spi_arg_time(&args, now);
	dropped = spi_run(&drop, &args) == 1;
	if (dropped)
	{
		spi_arg_int4(&tenant_arg, tenant);
		spi_run(&revoke, &tenant_arg);
	}
	spi_end();
	return dropped;
}
