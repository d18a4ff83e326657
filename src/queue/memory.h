/*
 * queue/memory.h
 *	  The shared memory of the claim engine.
 */
#ifndef GPU_ORCH_QUEUE_MEMORY_H
#define GPU_ORCH_QUEUE_MEMORY_H

extern void queue_memory_init_hooks(void);

#endif
