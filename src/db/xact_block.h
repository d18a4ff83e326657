/*
 * db/xact_block.h
 *	  The leader's transactions: one pair of functions opens and closes them all.
 */
#ifndef GPU_ORCH_XACT_BLOCK_H
#define GPU_ORCH_XACT_BLOCK_H

extern void xact_begin(const char *doing);
extern void xact_work_as(Oid role);
extern void xact_commit(void);
extern void xact_abort(void);

#endif
