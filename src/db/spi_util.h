/*
 * db/spi_util.h
 *	  Statements of our own, planned once for each backend.
 */
#ifndef GPU_ORCH_SPI_UTIL_H
#define GPU_ORCH_SPI_UTIL_H

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#define SPI_MAX_ARGS 24

/*
 * One statement, { sql }. Declared static in the store/ file that owns its table; all
 * names in it are qualified. The rest is of the plan, made when it first runs.
 */
typedef struct SpiQuery
{
	const char *sql;
	SPIPlanPtr plan;
	int nargs;
	Oid types[SPI_MAX_ARGS];
} SpiQuery;

/* The arguments of one execution; each comes with its type. */
typedef struct SpiArgs
{
	int n;
	Oid types[SPI_MAX_ARGS];
	Datum values[SPI_MAX_ARGS];
	char nulls[SPI_MAX_ARGS + 1];
} SpiArgs;

#define SPI_ARGS_INIT \
	{ \
		0 \
	}

extern void spi_arg(SpiArgs *args, Oid type, Datum value, bool isnull);
extern void spi_arg_text(SpiArgs *args, const char *value);
extern void spi_arg_int8(SpiArgs *args, int64 value);
extern void spi_arg_int4(SpiArgs *args, int32 value);
extern void spi_arg_bool(SpiArgs *args, bool value);
extern void spi_arg_time(SpiArgs *args, TimestampTz value);
extern void spi_arg_jsonb(SpiArgs *args, Jsonb *value);
extern void spi_arg_text_array(SpiArgs *args, char *const *texts, int n);
extern void spi_arg_int8_array(SpiArgs *args, const int64 *numbers, int n, Oid type);

extern int spi_pin_begin(void);
extern void spi_pin_end(int outer);
extern void spi_pin_forget(int outer);
extern Oid spi_table(const char *table);
extern void spi_lock_for_write(const char *table);
extern bool spi_try_lock_for_write(const char *table);
extern void spi_begin(void);
extern void spi_end(void);
extern uint64 spi_run(SpiQuery *query, SpiArgs *args);
extern uint64 spi_read(SpiQuery *query, SpiArgs *args, long limit);
extern void spi_run_one(SpiQuery *query, SpiArgs *args, const char *what);

extern bool spi_null(uint64 row, int column);
extern int64 spi_int8(uint64 row, int column);
extern int32 spi_int4(uint64 row, int column);
extern bool spi_bool(uint64 row, int column);
extern TimestampTz spi_time(uint64 row, int column);
extern char *spi_text(uint64 row, int column);
extern Datum spi_datum(uint64 row, int column, bool *isnull);

#endif
