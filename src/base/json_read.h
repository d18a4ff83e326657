/*
 * base/json_read.h
 *	  Reading JSON that a stranger wrote.
 */
#ifndef GPU_ORCH_JSON_READ_H
#define GPU_ORCH_JSON_READ_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* What is longer or nested deeper is refused before anything recurses. */
#define JSON_READ_MAX_BYTES (16 * 1024 * 1024)
#define JSON_READ_MAX_DEPTH 64
/* The highest amount of money that is believed, in dollars. */
#define JSON_READ_MAX_DOLLARS 1000000

extern const char *json_read_text_problem(const char *text, size_t len);
extern Jsonb *json_read_parse(const char *data, size_t len, char **error);

extern JsonbContainer *json_read_root(Jsonb *json);
extern bool json_read_has(JsonbContainer *object, const char *key);
extern char *json_read_string(JsonbContainer *object, const char *key);
extern bool json_read_bool(JsonbContainer *object, const char *key, bool *value);
extern bool json_read_int64(JsonbContainer *object, const char *key, int64 *value);
extern bool json_read_micros(JsonbContainer *object, const char *key, int64 *micros);
extern bool json_read_negative(JsonbContainer *object, const char *key);
extern bool json_read_time(JsonbContainer *object, const char *key, TimestampTz *value);
extern JsonbContainer *json_read_object(JsonbContainer *object, const char *key);
extern JsonbContainer *json_read_array(JsonbContainer *object, const char *key);
extern JsonbContainer *json_read_object_at(JsonbContainer *array, int i);
extern char *json_read_string_at(JsonbContainer *array, int i);

#endif
