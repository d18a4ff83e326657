/*
 * api/check.h
 *	  What the SQL-callable functions check before they do anything.
 */
#ifndef GPU_ORCH_API_CHECK_H
#define GPU_ORCH_API_CHECK_H

#include "base/compat.h"
#include "db/spi_util.h"
#include "fmgr.h"
#include "store/worker.h"
#include "utils/jsonb.h"

#define MAX_NAME_LENGTH 200
#define MAX_ERROR_BYTES 16384
#define MAX_JSON_DEPTH 64
#define MAX_DIGITS 1000 /* of a number in jsonb, before and after the point */

/*
 * Declare a function that SQL calls by this name. What follows defines name_body(), which
 * api_run() runs as the extension's owner.
 */
#define API_FUNCTION(name) \
	static Datum name##_body(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name); \
	Datum name(PG_FUNCTION_ARGS) \
	{ \
		return api_run(fcinfo, name##_body); \
	} \
	extern int no_such_variable

/* Declare one that touches no table and decides over no right; it runs as its caller. */
#define API_PURE_FUNCTION(name) PG_FUNCTION_INFO_V1(name)

extern Datum api_run(FunctionCallInfo fcinfo, PGFunction body);
extern void api_return_rows(FunctionCallInfo fcinfo, SpiQuery *query, SpiArgs *args);

compat_noreturn extern void api_refuse(const char *argument, const char *detail, const char *hint);
extern char *api_text(FunctionCallInfo fcinfo, int arg, const char *argument, int max_bytes);
extern char *api_text_or_null(FunctionCallInfo fcinfo, int arg, const char *argument,
							  int max_bytes);
extern void api_check_text(const char *argument, const char *value, int max_bytes);
extern void api_check_json(const char *argument, Jsonb *value, int max_bytes);
extern Jsonb *api_empty_object(void);

extern void api_begin_change(void);
extern void api_refuse_token(const char *worker_id);
extern void api_authenticate(const char *worker_id, const char *token, WorkerCall *worker);
extern bool api_is_operator(void);
extern void api_require_operator(const char *what);

#endif
