/*
 * base/value.h
 *	  Values of the rows that SQL functions return, null where there is none.
 */
#ifndef GPU_ORCH_VALUE_H
#define GPU_ORCH_VALUE_H

#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* A time, null where it is 0. */
static inline Datum
value_time(TimestampTz time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

/* A text, null where it is empty. */
static inline Datum
value_text(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

#endif
