/*
 * store/bill.h
 *	  What the provider bills, beside what we counted.
 */
#ifndef GPU_ORCH_STORE_BILL_H
#define GPU_ORCH_STORE_BILL_H

#include "db/spi_util.h"

/* What was counted last of a pod. */
typedef struct BillPast
{
	int32 pool; /* 0: none */
	int64 price_micros;
	TimestampTz ended_at; /* 0: it is being counted */
} BillPast;

extern TimestampTz store_bill_since(TimestampTz now);
extern void store_bill_write(char *const *pod_ids, const TimestampTz *hours, const int64 *amounts,
							 int n, TimestampTz now);
extern void store_bill_watch(TimestampTz now);
extern int store_bill_unexpected(char ***pod_ids, int limit, TimestampTz now);
extern void store_bill_looked(const char *pod_id, TimestampTz now);
extern bool store_bill_past(const char *pod_id, BillPast *past);

#endif
