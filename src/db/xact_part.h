/*
 * db/xact_part.h
 *	  A part of a transaction that may fail by itself.
 */
#ifndef GPU_ORCH_XACT_PART_H
#define GPU_ORCH_XACT_PART_H

extern ErrorData *xact_part(void (*work)(void *arg), void *arg);
extern bool xact_part_within(int64 ms, void (*work)(void *arg), void *arg);

#endif
