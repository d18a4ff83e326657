/*
 * store/own_role.c
 *	  A role that pods log in as does not change itself.
 *
 * The server lets every role set its own password and its own settings. All pods log in
 * as one role or a few: with the password of one pod the others could be kept out, by
 * another password or by settings under which no session works. The hook refuses that to
 * members of gpu_orch_worker that are nothing more, in all databases of the server. An
 * administrator changes such a role as any other.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_db_role_setting.h"
#include "miscadmin.h"
#include "store/own_role.h"
#include "utils/acl.h"

static object_access_hook_type previous_hook = NULL;

/* Whether pods may log in as a role, and it is neither an operator nor a superuser. */
static bool
is_only_worker(Oid role)
{
	Oid workers = get_role_oid("gpu_orch_worker", true);
	Oid operators = get_role_oid("gpu_orch_operator", true);

	return OidIsValid(workers) && !superuser_arg(role) && is_member_of_role(role, workers) &&
		!(OidIsValid(operators) && is_member_of_role(role, operators));
}

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub_object, void *arg)
{
	Oid role = InvalidOid;

	if (previous_hook != NULL)
		previous_hook(access, class, object, sub_object, arg);
	if (access != OAT_POST_ALTER)
		return;
	if (class == AuthIdRelationId)
		role = object;
	else if (class == DbRoleSettingRelationId)
		role = ((ObjectAccessPostAlter *) arg)->auxiliary_id;
	if (!OidIsValid(role) || role != GetUserId() || !is_only_worker(role))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not change itself", GetUserNameFromId(role, false)),
			 errdetail("Pods log in as this role: what one of them changes would stop the others."),
			 errhint("Let an administrator change the role.")));
}

/* Take our place among the hooks. To be called from _PG_init, once for a server. */
void
store_own_role_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = on_object_access;
}
