/*
 * store/alert.h
 *	  What somebody should look at.
 */
#ifndef GPU_ORCH_STORE_ALERT_H
#define GPU_ORCH_STORE_ALERT_H

#include "db/spi_util.h"

/* Names of rows of alert_rule. */
#define ALERT_HOLD "hold"
#define ALERT_SECOND_OWNER "second_owner"
#define ALERT_DELETE_OWED "delete_owed"
#define ALERT_DELETE_OWED_LONG "delete_owed_long"
#define ALERT_LIST_NOT_BELIEVED "list_not_believed"
#define ALERT_WRONG_ACCOUNT "wrong_account"
#define ALERT_BALANCE_LOW "balance_low"
#define ALERT_BALANCE_EMPTY "balance_empty"
#define ALERT_KEY_REFUSED "key_refused"
#define ALERT_NO_MONEY "no_money"
#define ALERT_RATE_LIMITED "rate_limited"
#define ALERT_IMAGE_BROKEN "image_broken"
#define ALERT_REQUEST_REFUSED "request_refused"
#define ALERT_NO_CAPACITY "no_capacity"
#define ALERT_BUDGET_HARD "budget_hard"
#define ALERT_BUDGET_SOFT "budget_soft"
#define ALERT_PRICE_UNKNOWN "price_unknown"
#define ALERT_POISONED_ROW "poisoned_row"
#define ALERT_BILLING_MISMATCH "billing_mismatch"
#define ALERT_WORKER_BROKEN "worker_broken"
#define ALERT_WORKER_ID_SHARED "worker_id_shared"
#define ALERT_POD_REBOUND "pod_rebound"
#define ALERT_SHAPE_LIMIT "shape_limit"
#define ALERT_ROW_KEPT "row_kept"

/* One alert of a name among others. */
typedef struct AlertCase
{
	const char *subject;
	const char *detail;
} AlertCase;

extern void store_alert(const char *name, const char *subject, const char *detail, TimestampTz now);
extern void store_alert_all(const char *name, const AlertCase *cases, int n, TimestampTz now);
extern void store_alert_expire(const char *name, TimestampTz before, TimestampTz now);

#endif
