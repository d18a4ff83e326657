/*
 * store/drop.h
 *	  Our tables are not dropped while pods depend on them.
 */
#ifndef GPU_ORCH_STORE_DROP_H
#define GPU_ORCH_STORE_DROP_H

extern void store_drop_init(void);

#endif
