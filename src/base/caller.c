/*
 * base/caller.c
 *	  On whose behalf the code that runs now does what it does.
 *
 * A function of the extension works on the tables as the extension's owner. Who may do what
 * is decided for the role that called the function, and that role is recorded. api_run()
 * alone sets the role, for as long as the function runs.
 */
#include "postgres.h"

#include "base/caller.h"
#include "miscadmin.h"

/* The role that called; InvalidOid outside of calls, as in the leader. */
static Oid caller = InvalidOid;

/* The role that called the function that runs; in the leader, the role that it works as. */
Oid
caller_role(void)
{
	return OidIsValid(caller) ? caller : GetUserId();
}

/* The name of that role, allocated in the current memory context. */
const char *
caller_name(void)
{
	return GetUserNameFromId(caller_role(), false);
}

/* Set the role that called; InvalidOid ends the call. Returns what was set before. */
Oid
caller_set(Oid role)
{
	Oid before = caller;

	caller = role;
	return before;
}
