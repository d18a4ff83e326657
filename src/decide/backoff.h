/*
 * decide/backoff.h
 *	  How long to wait before the next try. Pure.
 */
#ifndef GPU_ORCH_BACKOFF_H
#define GPU_ORCH_BACKOFF_H

#include <stdint.h>

extern int64_t backoff_ms(int attempt, int64_t base_ms, int64_t cap_ms, uint64_t seed);

#endif
