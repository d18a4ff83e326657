/*
 * store/trigger.h
 *	  No triggers, foreign keys or rules on the hot tables.
 */
#ifndef GPU_ORCH_STORE_TRIGGER_H
#define GPU_ORCH_STORE_TRIGGER_H

extern void store_trigger_init(void);

#endif
