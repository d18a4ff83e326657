/*
 * base/guc.h
 *	  The settings of gpu_orch. Intervals are in milliseconds, those of retention in minutes;
 *	  guc_us() is one of milliseconds in microseconds, as times are.
 */
#ifndef GPU_ORCH_GUC_H
#define GPU_ORCH_GUC_H

/* The longest gpu_orch.locality_window. */
#define MAX_LOCALITY_WINDOW 64

/* The shortest retention of tasks, and of the ledger: longer than a budget's window and than bills are kept. In minutes. */
#define MIN_RETENTION_TASKS 60
#define MIN_RETENTION_LEDGER (100 * 24 * 60)

/* Priorities go from minus this to this. */
#define MAX_PRIORITY 1000000

extern bool guc_allow_drop;
extern int guc_api_concurrency;
extern bool guc_async_claims;
extern int guc_cycle_interval;
extern char *guc_database;
extern bool guc_enabled;
extern int guc_event_debounce;
extern int guc_heartbeat_interval;
extern int guc_heartbeat_timeout;
extern char *guc_http_ca_file;
extern int guc_http_connect_timeout;
extern int guc_http_timeout;
extern int guc_key_retention;
extern int guc_kill_cap_percent;
extern int guc_log_level;
extern int guc_locality_window;
extern int guc_max_capability_sets;
extern int guc_max_losses;
extern int guc_max_payload_bytes;
extern int guc_max_priority;
extern int guc_max_shapes;
extern int guc_max_workers;
extern int guc_orphan_grace;
extern int guc_priority_ageing;
extern int guc_reconcile_interval;
extern int guc_retention_decisions;
extern int guc_retention_ledger;
extern int guc_retention_payloads;
extern int guc_retention_results;
extern int guc_retention_tasks;
extern int guc_retry_delay;
extern int guc_row_lock_timeout;
extern char *guc_runpod_api_key_file;
extern char *guc_runpod_api_url;
extern int guc_settle_time;
extern char *guc_site_token_file;
extern int guc_spawn_rate_limit;
extern bool guc_test_clock;
extern char *guc_worker_dsn;
extern char *guc_worker_dsn_file;

extern void guc_init(void);

/* A setting that is an interval, in microseconds. */
static inline int64
guc_us(int milliseconds)
{
	return (int64) milliseconds * 1000;
}

#endif
