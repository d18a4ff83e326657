/*
 * base/caller.h
 *	  On whose behalf the code that runs now does what it does.
 */
#ifndef GPU_ORCH_CALLER_H
#define GPU_ORCH_CALLER_H

extern Oid caller_role(void);
extern const char *caller_name(void);
extern Oid caller_set(Oid role);

#endif
