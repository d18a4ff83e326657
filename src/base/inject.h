/*
 * base/inject.h
 *	  Named points at which a test can stop the process.
 *
 * In a library built without INJECT=1 a point is nothing at all.
 */
#ifndef GPU_ORCH_INJECT_H
#define GPU_ORCH_INJECT_H

#ifdef GPU_ORCH_INJECT
extern void inject(const char *point);
#define INJECT(point) inject(point)
#else
#define INJECT(point) ((void) 0)
#endif

#endif
