/*
 * store/tenant.c
 *	  Tenants, their limits, and who may submit for whom: all access to tenant and
 *	  tenant_grant.
 *
 * The default tenant is unlimited and has no row, so that its submitters never
 * meet on one.
 */
#include "postgres.h"

#include "store/lease.h"
#include "store/tenant.h"
#include "utils/acl.h"

/* The id of a tenant by name; false if there is none. */
bool
store_tenant_find(const char *name, int32 *tenant)
{
	static SpiQuery query = { "SELECT id FROM gpu_orch.tenant WHERE name = $1", 1, { TEXTOID } };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	if (strcmp(name, "default") == 0)
	{
		*tenant = DEFAULT_TENANT;
		return true;
	}
	spi_begin();
	spi_arg_text(&args, name);
	found = spi_read(&query, &args, 1) == 1;
	if (found)
		*tenant = spi_int4(0, 1);
	spi_end();
	return found;
}

/* The name of a tenant, allocated in the current memory context. */
char *
store_tenant_name(int32 tenant)
{
	static SpiQuery query = { "SELECT name FROM gpu_orch.tenant WHERE id = $1", 1, { INT4OID } };
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
 * Whether a role may submit for a tenant: for the default one everybody who may
 * submit at all, for another one who was granted it or is an operator.
 */
bool
store_tenant_allows(int32 tenant, Oid role)
{
	static SpiQuery query = { "SELECT role::text FROM gpu_orch.tenant_grant WHERE tenant = $1",
							  1,
							  { INT4OID } };
	SpiArgs args = SPI_ARGS_INIT;
	Oid operators = get_role_oid("gpu_orch_operator", true);
	bool allowed = false;
	uint64 n;

	if (tenant == DEFAULT_TENANT || (OidIsValid(operators) && has_privs_of_role(role, operators)))
		return true;
	spi_begin();
	spi_arg_int4(&args, tenant);
	n = spi_read(&query, &args, 0);
	for (uint64 i = 0; i < n && !allowed; i++)
	{
		Oid granted = get_role_oid(spi_text(i, 1), true);

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
		"SELECT max_running IS NOT NULL, (weight * 1000000)::bigint FROM gpu_orch.tenant WHERE id = $1",
		1,
		{ INT4OID }
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

/*
 * Whether a tenant has room for one more running task. The row of a limited
 * tenant is locked until the end of the transaction and its leases are counted
 * afterwards, so that two claims never share the last place. *holds says whether
 * this claim has locked a tenant before: then it does not wait for another one,
 * so that claims of several tenants' tasks never wait for each other in a circle.
 */
TenantRoom
store_tenant_take_room(int32 tenant, bool *holds)
{
	static SpiQuery lock = {
		"SELECT max_running FROM gpu_orch.tenant WHERE id = $1 AND max_running IS NOT NULL "
		"FOR NO KEY UPDATE",
		1,
		{ INT4OID }
	};
	static SpiQuery try_lock = {
		"SELECT max_running FROM gpu_orch.tenant WHERE id = $1 AND max_running IS NOT NULL "
		"FOR NO KEY UPDATE SKIP LOCKED",
		1,
		{ INT4OID }
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool locked;
	bool limited;
	double weight;
	int32 limit = 0;

	store_tenant_terms(tenant, &limited, &weight);
	if (!limited)
		return TENANT_HAS_ROOM;
	spi_begin();
	spi_arg_int4(&args, tenant);
	locked = spi_run(*holds ? &try_lock : &lock, &args) == 1;
	if (locked)
		limit = spi_int4(0, 1);
	spi_end();
	if (!locked)
		return *holds ? TENANT_BUSY : TENANT_HAS_ROOM;
	*holds = true;
	return store_lease_count_tenant(tenant) < limit ? TENANT_HAS_ROOM : TENANT_FULL;
}

/* Add a tenant; max_running below 0 means unlimited. A taken name is a 23505. */
int32
store_tenant_create(const char *name, int32 max_running, Datum weight, TimestampTz now)
{
	static SpiQuery query = { "INSERT INTO gpu_orch.tenant (name, max_running, weight, created_at)"
							  " VALUES ($1, $2, $3, $4) RETURNING id",
							  4,
							  { TEXTOID, INT4OID, NUMERICOID, TIMESTAMPTZOID } };
	SpiArgs args = SPI_ARGS_INIT;
	int32 id;

	spi_begin();
	spi_arg_text(&args, name);
	spi_arg(&args, Int32GetDatum(max_running), max_running < 0);
	spi_arg(&args, weight, false);
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "adding a tenant");
	id = spi_int4(0, 1);
	spi_end();
	return id;
}

/* Change a tenant's limit, below 0 for none, and its weight unless that is (Datum) 0. */
void
store_tenant_change(int32 tenant, int32 max_running, Datum weight)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.tenant SET max_running = $2, weight = coalesce($3, weight) WHERE id = $1",
		3,
		{ INT4OID, INT4OID, NUMERICOID }
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, tenant);
	spi_arg(&args, Int32GetDatum(max_running), max_running < 0);
	spi_arg(&args, weight, weight == (Datum) 0);
	spi_run_one(&query, &args, "changing a tenant");
	spi_end();
}

/* Let a role submit for a tenant, or no longer. Repeating it changes nothing. */
void
store_tenant_grant(int32 tenant, const char *role, bool grant)
{
	static SpiQuery add = {
		"INSERT INTO gpu_orch.tenant_grant (tenant, role) VALUES ($1, $2) ON CONFLICT DO NOTHING",
		2,
		{ INT4OID, TEXTOID }
	};
	static SpiQuery remove = { "DELETE FROM gpu_orch.tenant_grant WHERE tenant = $1 AND role = $2",
							   2,
							   { INT4OID, TEXTOID } };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, tenant);
	spi_arg_text(&args, role);
	spi_run(grant ? &add : &remove, &args);
	spi_end();
}
