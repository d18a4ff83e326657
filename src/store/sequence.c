/*
 * store/sequence.c
 *	  The numbers that our tables give out, in a copy that takes over.
 *
 * Logical replication brings rows and no sequences: in a subscriber the next number
 * of each identity column is one that a row has already. Decides nothing about who
 * takes over; see store/installation.c.
 */
#include "postgres.h"

#include "db/spi_util.h"
#include "store/sequence.h"

/* For each sequence of an identity column, a statement that moves it behind the rows. */
#define STATEMENTS \
	"SELECT pg_catalog.format('SELECT pg_catalog.setval(%L, m.n)" \
	" FROM (SELECT pg_catalog.max(%I)::bigint AS n FROM %s) m, %s s" \
	" WHERE m.n >= s.last_value'," \
	" d.objid::pg_catalog.regclass, a.attname, d.refobjid::pg_catalog.regclass," \
	" d.objid::pg_catalog.regclass)" \
	" FROM pg_catalog.pg_depend d" \
	" JOIN pg_catalog.pg_class c ON c.oid = d.refobjid" \
	" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace" \
	" JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid" \
	" WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass" \
	" AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass" \
	" AND d.deptype = 'i' AND n.nspname = 'gpu_orch' AND a.attidentity <> ''" \
	" ORDER BY c.relname"

/* Let each identity column go on behind the highest number that a row of its table has. */
void
store_sequences_pass(void)
{
	static SpiQuery query = { STATEMENTS };
	char **statements;
	int n;

	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	statements = SPI_palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		statements[i] = spi_text(i, 1);
	for (int i = 0; i < n; i++)
		if (SPI_execute(statements[i], false, 0) != SPI_OK_SELECT)
			elog(ERROR, "gpu_orch: could not run \"%s\"", statements[i]);
	spi_end();
}
