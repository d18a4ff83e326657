/*
 * db/ext_guard.h
 *	  Does the schema in this database fit the library, and may the leader act on it?
 */
#ifndef GPU_ORCH_EXT_GUARD_H
#define GPU_ORCH_EXT_GUARD_H

typedef enum GuardVerdict
{
	GUARD_GO,
	GUARD_BUSY,	   /* somebody holds the extension: try at the next tick */
	GUARD_ABSENT,  /* the extension is not in this database */
	GUARD_VERSION, /* the extension is of a version that we do not serve */
	GUARD_STANDBY,
	GUARD_SUBSCRIBER /* another installation's rows are still being replicated to here */
} GuardVerdict;

extern void ext_require(void);
extern bool ext_is_older_schema(void);
extern GuardVerdict ext_guard_check(void);
extern Oid ext_owner(void);
extern const char *ext_guard_explain(GuardVerdict verdict);

#endif
