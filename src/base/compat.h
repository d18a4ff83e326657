/*
 * base/compat.h
 *	  The differences between the PostgreSQL majors that we serve, 15 to 18.
 *
 * The only file that may look at the server's version number. Each entry is
 * named by what it does, so that no other file needs to know which major
 * changed what.
 */
#ifndef GPU_ORCH_COMPAT_H
#define GPU_ORCH_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#if PG_VERSION_NUM < 150000
#error "gpu_orch needs PostgreSQL 15 or later"
#endif

/* 17 hands wait event sets to a resource owner instead of a memory context. */
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(nevents) CreateWaitEventSet(NULL, (nevents))
#else
#define compat_create_wait_event_set(nevents) CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/* 17 moves the number that a backend gives its transaction. */
#if PG_VERSION_NUM >= 170000
#define compat_local_xid() (MyProc->vxid.lxid)
#else
#define compat_local_xid() (MyProc->lxid)
#endif

/* 18 writes the attribute of functions that do not return in another way. */
#if PG_VERSION_NUM >= 180000
#define compat_noreturn pg_noreturn
#else
#define compat_noreturn pg_attribute_noreturn()
#endif

/* 16 calls the number of a relation's file by another name. */
#if PG_VERSION_NUM >= 160000
#define compat_relation_file(rel) ((rel)->rd_locator.relNumber)
#else
#define compat_relation_file(rel) ((rel)->rd_node.relNode)
#endif

/* 18 counts index searches for EXPLAIN through an extra argument. */
#if PG_VERSION_NUM >= 180000
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* 17 lets an access method keep something between insertions, and gives it back here. */
#if PG_VERSION_NUM >= 170000
#define compat_index_insert_cleanup(index, info) index_insert_cleanup((index), (info))
#else
#define compat_index_insert_cleanup(index, info) ((void) 0)
#endif

/* 18 has generated columns that are not stored. */
#if PG_VERSION_NUM >= 180000
#define compat_is_virtual(column) ((column)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define compat_is_virtual(column) false
#endif

#endif
