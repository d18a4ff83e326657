/*
 * api/check.h
 *	  What the SQL-callable functions check before they do anything.
 */
#ifndef GPU_ORCH_API_CHECK_H
#define GPU_ORCH_API_CHECK_H

#include "base/compat.h"
#include "store/worker.h"
#include "utils/jsonb.h"

#define MAX_NAME_LENGTH 200
#define MAX_ERROR_BYTES 16384
#define MAX_JSON_DEPTH 64

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
