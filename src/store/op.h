/*
 * store/op.h
 *	  The journal of calls to the provider.
 */
#ifndef GPU_ORCH_STORE_OP_H
#define GPU_ORCH_STORE_OP_H

#include "db/spi_util.h"
#include "store/installation.h"
#include "store/offer.h"

typedef enum OpKind
{
	OP_CREATE,
	OP_DELETE
} OpKind;

typedef enum OpState
{
	OP_PLANNED,
	OP_SENT,
	OP_UNKNOWN,
	OP_DONE,
	OP_REFUSED,
	OP_ABSENT
} OpState;

typedef struct CloudOpRow
{
	int64 id;
	OpKind kind;
	OpState state;
	int64 worker;
	int32 pool;
	int64 offer;
	char *nonce;
	char *pod_name;
	char *pod_id; /* NULL: not known */
	char *gpu_type;
	char *data_center; /* NULL: any */
	int32 gpu_count;   /* 0: a delete */
	char *cloud_type;
	int64 price_micros; /* what it counts for */
	bool price_assumed; /* since the offer's price was not known */
	int64 epoch;		/* leader that sent it */
	int32 tries;
	TimestampTz due_at;
	TimestampTz planned_at;
	TimestampTz sent_at;
	TimestampTz answered_at;
	int32 absent_looks;
	TimestampTz absent_since;
	TimestampTz denied_at; /* a delete's: asked for alone, it was not there */
	int32 http_status;	   /* of the last answer; 0: none */
	bool verified;		   /* the provider showed pod_id under pod_name */
} CloudOpRow;

extern char *store_op_pod_name(const Installation *installation, const char *nonce);

extern int64 store_op_plan_create(int64 worker, const OfferRow *offer,
								  const Installation *installation, int64 price_micros,
								  int64 decision, TimestampTz now);
extern void store_op_restore(int64 worker, int32 pool, const char *nonce, const char *pod_name,
							 const char *pod_id, int64 price_micros, TimestampTz sent_at,
							 TimestampTz now);
extern void store_op_plan_delete(int64 worker, int32 pool, const char *pod_name, const char *pod_id,
								 const char *cause, const char *requested_by, TimestampTz now);
extern void store_op_watch_deletes(TimestampTz now);
extern int store_op_plan_owed_deletes(TimestampTz now);
extern int store_op_due(CloudOpRow **ops, OpKind kind, int limit, TimestampTz now);
extern int store_op_abandoned(CloudOpRow **ops);
extern bool store_op_read(int64 id, CloudOpRow *op);
extern bool store_op_lock(int64 id, CloudOpRow *op);
extern int store_op_open(CloudOpRow **ops);
extern bool store_op_find_by_name(const char *pod_name, CloudOpRow *op);
extern bool store_op_was_deleted(const char *pod_id);
extern bool store_op_latest(int64 worker, OpKind kind, CloudOpRow *op);
extern void store_op_postpone(int64 id, TimestampTz due_at);
extern void store_op_sent(int64 id, int64 epoch, TimestampTz now);
extern void store_op_answer(int64 id, OpState state, int http_status, const char *reason,
							const char *message, const char *pod_id, TimestampTz due_at,
							TimestampTz now);
extern void store_op_verify(int64 id);
extern void store_op_verify_listed(char *const *names, char *const *ids, int n);
extern void store_op_rebind(const CloudOpRow *op, const char *pod_id, TimestampTz now);
extern void store_op_send_again(int64 id, TimestampTz now);
extern void store_op_unanswered(int64 epoch, TimestampTz before, TimestampTz now);
extern TimestampTz store_op_next_due(TimestampTz now);
extern int64 store_op_creates_since(TimestampTz since);

#endif
