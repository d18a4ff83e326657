/*
 * queue/match.h
 *	  Does a worker with these capabilities meet these requirements, and what is
 *	  the canonical form of either? docs/matching.md has the rules.
 */
#ifndef GPU_ORCH_MATCH_H
#define GPU_ORCH_MATCH_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* What is accepted as capabilities or requirements. */
#define MATCH_MAX_BYTES (64 * 1024) /* of the jsonb in its binary form */
#define MATCH_MAX_DEPTH 16			/* objects and arrays, the outermost counted */
#define MATCH_MAX_NODES 1000		/* keys and elements together */
#define MATCH_MAX_DIGITS 100		/* of a number, before and after the point */

/* Why a worker does not do; both strings are palloc'd. */
typedef struct MatchReason
{
	char *key;		/* of the requirement: hardware.gpu_memory_gb */
	char *sentence; /* begins with the key and a colon */
} MatchReason;

extern char *match_check_requirements(Jsonb *requirements, char **hint);
extern char *match_check_capabilities(Jsonb *capabilities, char **hint);
extern void match_require_requirements(Jsonb *requirements, const char *argument);
extern void match_require_capabilities(Jsonb *capabilities, const char *argument);

extern bool match_satisfies(Jsonb *capabilities, Jsonb *requirements, const char *kind,
							List **reasons);

extern char *match_canonical(const char *kind, Jsonb *requirements, const char *isolation);
extern char *match_capabilities_canonical(Jsonb *capabilities);
extern int64 match_shape_id(const char *canonical);

#endif
