/*
 * store/sequence.h
 *	  The numbers that our tables give out, in a copy that takes over.
 */
#ifndef GPU_ORCH_STORE_SEQUENCE_H
#define GPU_ORCH_STORE_SEQUENCE_H

extern void store_sequences_pass(void);

#endif
