/*
 * base/guc.c
 *	  All settings, in alphabetical order; docs/configuration.md describes them.
 *
 * Context of each: what the leader alone reads is PGC_SIGHUP, so that it never
 * differs between sessions; what is fixed with the process is PGC_POSTMASTER.
 * No setting holds a secret: a setting's value can be read by monitoring roles
 * and is printed to the log when it changes, so the provider's key is named by
 * the path of a file.
 */
#include "postgres.h"

#include <limits.h>

#include "base/guc.h"
#include "miscadmin.h"
#include "utils/guc.h"

bool guc_allow_drop = false;
int guc_api_concurrency = 8;
bool guc_async_claims = false;
int guc_cycle_interval = 10000;
char *guc_database = NULL;
bool guc_enabled = true;
int guc_event_debounce = 50;
int guc_heartbeat_interval = 5000;
int guc_heartbeat_timeout = 30000;
char *guc_http_ca_file = NULL;
int guc_http_connect_timeout = 10000;
int guc_http_timeout = 60000;
int guc_key_retention = 7 * 24 * 60;
int guc_kill_cap_percent = 20;
int guc_log_level = LOG;
int guc_locality_window = 0;
int guc_max_capability_sets = 128;
int guc_max_losses = 5;
int guc_max_payload_bytes = 1024 * 1024;
int guc_max_priority = MAX_PRIORITY;
int guc_max_shapes = 32768;
int guc_max_workers = 10000;
int guc_orphan_grace = 600000;
int guc_priority_ageing = 0;
int guc_reconcile_interval = 60000;
int guc_retention_decisions = 30 * 24 * 60;
int guc_retention_ledger = 400 * 24 * 60;
int guc_retention_payloads = -1;
int guc_retention_results = -1;
int guc_retention_tasks = 30 * 24 * 60;
int guc_retry_delay = 5000;
int guc_row_lock_timeout = 60000;
char *guc_runpod_api_key_file = NULL;
char *guc_runpod_api_url = NULL;
int guc_settle_time = 600000;
char *guc_site_token_file = NULL;
int guc_spawn_rate_limit = 60;
bool guc_test_clock = false;
char *guc_worker_dsn = NULL;
char *guc_worker_dsn_file = NULL;

static const struct config_enum_entry log_levels[] = { { "debug", DEBUG1, false },
													   { "log", LOG, false },
													   { "warning", WARNING, false },
													   { NULL, 0, false } };

/* Whether a retention, in minutes, is -1 or long enough. */
static bool
is_retention(int minutes, int least)
{
	if (minutes < 0 || minutes >= least)
		return true;
	GUC_check_errdetail("It is shorter than %d minutes.", least);
	GUC_check_errhint("Use a longer time, or -1 for ever.");
	return false;
}

static bool
check_retention_tasks(int *newval, void **extra, GucSource source)
{
	return is_retention(*newval, MIN_RETENTION_TASKS);
}

static bool
check_retention_ledger(int *newval, void **extra, GucSource source)
{
	return is_retention(*newval, MIN_RETENTION_LEDGER);
}

/*
 * Define all settings. To be called from _PG_init. Those fixed at server start
 * can be defined only while the server preloads libraries.
 */
void
guc_init(void)
{
	DefineCustomBoolVariable(
		"gpu_orch.allow_drop",
		"Whether the extension and its tables may be dropped while there are pods.",
		"The pods run on, and bill.", &guc_allow_drop, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.api_concurrency",
							"Calls to the provider that may be in flight at a time.", NULL,
							&guc_api_concurrency, 8, 1, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"gpu_orch.async_claims",
		"Whether the caller's synchronous_commit decides if a claim waits for the disk.",
		"A claim that a crash of the server undoes is a task that is ready "
		"again. When off, each claim waits.",
		&guc_async_claims, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.cycle_interval",
		"Time after which the leader looks at everything again, even if nothing "
		"woke it.",
		NULL, &guc_cycle_interval, 10000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomStringVariable("gpu_orch.database", "Database that the leader works in.",
								   "Empty: no leader is started.", &guc_database, "",
								   PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("gpu_orch.enabled", "Whether the leader acts.",
							 "When off it leaves the database, so that the database can be dropped "
							 "or copied.",
							 &guc_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.event_debounce",
							"Time that scaling decisions wait for further events after the first.",
							NULL, &guc_event_debounce, 50, 0, 10000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable("gpu_orch.heartbeat_interval",
							"Time between heartbeats that workers are told at registration.", NULL,
							&guc_heartbeat_interval, 5000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.heartbeat_timeout",
							"Silence after which a worker is taken for lost, unless its pool says "
							"otherwise.",
							NULL, &guc_heartbeat_timeout, 30000, 200, 86400000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("gpu_orch.http_ca_file",
							   "File of the certificates that the provider's is verified by.",
							   "Empty: those that the system trusts.", &guc_http_ca_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.http_connect_timeout", "Time that a connection to the provider may take.", NULL,
		&guc_http_connect_timeout, 10000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.http_timeout", "Time that a call to the provider may take in all.", NULL,
		&guc_http_timeout, 60000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.key_retention",
							"Time after its submission that a task with an idempotency key stays.",
							"-1: for ever.", &guc_key_retention, 7 * 24 * 60, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.kill_cap_percent",
							"Share of the fleet that one reconcile may end on the word of a list.",
							"At least two pods are always allowed.", &guc_kill_cap_percent, 20, 1,
							100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.locality_window",
		"Tasks among which a claim prefers one whose model its worker used last.",
		"No task is passed over more often than this. 0: strict order.", &guc_locality_window, 0, 0,
		MAX_LOCALITY_WINDOW, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("gpu_orch.log_level",
							 "Level at which the leader reports what it does.", NULL,
							 &guc_log_level, LOG, log_levels, PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable(
			"gpu_orch.max_capability_sets",
			"Different capabilities of workers for which the next tasks are kept "
			"at hand.",
			"Claims of workers beyond that have to search.", &guc_max_capability_sets, 128, 1, 4096,
			PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.max_losses",
							"Workers that a task may lose before it is quarantined as failed.",
							NULL, &guc_max_losses, 5, 1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.max_payload_bytes",
							"Largest payload and largest result of a task.", NULL,
							&guc_max_payload_bytes, 1024 * 1024, 1024, 64 * 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.max_priority",
							"Highest priority that a role may submit with that is no operator.",
							NULL, &guc_max_priority, MAX_PRIORITY, -MAX_PRIORITY, MAX_PRIORITY,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable(
			"gpu_orch.max_shapes", "Different requirements that may be ready at a time.",
			"Tasks with further ones are held until there is room.", &guc_max_shapes, 32768, 16,
			1048576, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.max_workers",
							"External workers that one role may have registered at a time.", NULL,
							&guc_max_workers, 10000, 0, 1000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.orphan_grace",
							"Age at which a pod of ours without a row that wants it is deleted.",
							NULL, &guc_orphan_grace, 600000, 0, 86400000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.priority_ageing",
							"Time after which a ready task is moved to the highest priority that "
							"waits beside it.",
							"0: never; higher priority always goes first.", &guc_priority_ageing, 0,
							0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.reconcile_interval",
							"Time between two readings of the provider's list of pods.", NULL,
							&guc_reconcile_interval, 60000, 100, 86400000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.retention_decisions",
							"Age at which scaling decisions are removed.", "-1: never.",
							&guc_retention_decisions, 30 * 24 * 60, -1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MIN, check_retention_tasks, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.retention_ledger",
		"Time after their end that workers, calls, spend, events and alerts are "
		"removed, and days that are summed up.",
		"-1: never.", &guc_retention_ledger, 400 * 24 * 60, -1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN,
		check_retention_ledger, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.retention_payloads",
							"Time after its end that a task's payload is erased.",
							"-1: not before the task is removed.", &guc_retention_payloads, -1, -1,
							INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.retention_results",
							"Time after its end that a task's results and errors are erased.",
							"-1: not before the task is removed.", &guc_retention_results, -1, -1,
							INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.retention_tasks",
							"Time after its end that a task is removed.", "-1: never.",
							&guc_retention_tasks, 30 * 24 * 60, -1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MIN, check_retention_tasks, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.retry_delay",
							"Delay before a failed task is tried again; doubled each time, with "
							"jitter, up to an hour.",
							NULL, &guc_retry_delay, 5000, 0, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.row_lock_timeout",
		"Time that a transaction may keep a worker or a task from being ended; then its session is ended.",
		"Sessions of superusers are never ended. 0: no session is.", &guc_row_lock_timeout, 60000,
		0, 86400000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"gpu_orch.runpod_api_key_file", "File that holds the RunPod API key.",
		"Owned by the server's user and readable by nobody else.", &guc_runpod_api_key_file, "",
		PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("gpu_orch.runpod_api_url", "Base address of RunPod's REST API.",
							   "https only; plain http is accepted for loopback addresses.",
							   &guc_runpod_api_url, "https://api.runpod.io/v2", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"gpu_orch.settle_time",
		"Time between the two looks that settle a create whose outcome is unknown.", NULL,
		&guc_settle_time, 600000, 0, 86400000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"gpu_orch.site_token_file",
		"File that names this site, and the sites that it may take over from.",
		"One token a line, this site's first. Owned by the server's user, "
		"readable by nobody else, and outside of the data directory.",
		&guc_site_token_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("gpu_orch.spawn_rate_limit",
							"Pods that may be created within one minute.", NULL,
							&guc_spawn_rate_limit, 60, 0, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomBoolVariable(
			"gpu_orch.test_clock",
			"Whether advance_clock() may move the clock of gpu_orch. For tests.", NULL,
			&guc_test_clock, false, PGC_POSTMASTER, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"gpu_orch.worker_dsn", "Connection string that pods are given to reach this database.",
		NULL, &guc_worker_dsn, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"gpu_orch.worker_dsn_file", "File of the connection string that pods are given.",
		"Used in place of gpu_orch.worker_dsn, whose value the server shows and logs.",
		&guc_worker_dsn_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		MarkGUCPrefixReserved("gpu_orch");
}
