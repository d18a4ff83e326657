/*
 * store_installation.c
 *	  Who we are to the provider, and whether this copy may act: all access to
 *	  installation.
 *
 * The row is made on first use, with a random id, and remembers the server and
 * the database that it was made in. A restored dump or a copy of the database
 * finds that it is somewhere else and goes on hold: it serves tasks, but creates
 * and deletes nothing, until adopt_installation().
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "store_alert.h"
#include "store_event.h"
#include "store_installation.h"
#include "utils/builtins.h"

static char *
system_identifier(void)
{
	return psprintf(UINT64_FORMAT, GetSystemIdentifier());
}

/* Read the row; false if it has not been made yet. */
bool
store_installation_read(Installation *installation)
{
	static SpiQuery query = {
		"SELECT id, epoch, leader_epoch, hold, paused, coalesce(account, '')"
		" FROM gpu_orch.installation", 0, {0}
	};
	bool		found;

	spi_begin();
	found = spi_read(&query, NULL, 1) == 1;
	if (found)
	{
		strlcpy(installation->id, spi_text(0, 1), sizeof(installation->id));
		installation->epoch = spi_int4(0, 2);
		installation->leader_epoch = spi_int8(0, 3);
		installation->hold = spi_bool(0, 4);
		installation->paused = spi_bool(0, 5);
		strlcpy(installation->account, spi_text(0, 6), sizeof(installation->account));
	}
	spi_end();
	return found;
}

/*
 * Read the row, and note if this copy is not where it was made. False if there is
 * none yet. The leader never makes it: a dump that is being restored brings its own.
 */
bool
store_installation_check(Installation *installation, TimestampTz now)
{
	static SpiQuery compare = {
		"UPDATE gpu_orch.installation SET hold = true, hold_reason ="
		" CASE WHEN system_identifier <> $1 THEN 'made on another server: ' || system_identifier"
		"      ELSE 'made in another database: ' || database END"
		" WHERE NOT hold AND (system_identifier <> $1 OR database <> $2) RETURNING hold_reason",
		2, {TEXTOID, OIDOID}
	};
	SpiArgs		args = SPI_ARGS_INIT;

	if (!store_installation_read(installation))
		return false;
	if (installation->hold)
		return true;
	spi_begin();
	spi_arg_text(&args, system_identifier());
	spi_arg(&args, ObjectIdGetDatum(MyDatabaseId), false);
	if (spi_run(&compare, &args) == 1)
	{
		char	   *reason = spi_text(0, 1);

		installation->hold = true;
		store_event("hold", "installation", store_detail("why", reason), now);
		store_alert(ALERT_HOLD, "installation", reason, now);
		ereport(WARNING,
				(errmsg("gpu_orch is on hold: this installation was %s", reason),
				 errhint("If this copy is to take over the fleet, call "
						 "gpu_orch.adopt_installation().")));
	}
	spi_end();
	return true;
}

/* Make the row if it is not there, then check it: for functions that people and workers call. */
void
store_installation_ensure(Installation *installation, TimestampTz now)
{
	static SpiQuery make = {
		"INSERT INTO gpu_orch.installation (id, system_identifier, database, created_at)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		4, {TEXTOID, TEXTOID, OIDOID, TIMESTAMPTZOID}
	};

	if (!store_installation_read(installation))
	{
		uint8		bits[INSTALLATION_ID_LENGTH / 2];
		char		id[INSTALLATION_ID_LENGTH + 1];
		SpiArgs		args = SPI_ARGS_INIT;

		if (!pg_strong_random(bits, sizeof(bits)))
			elog(ERROR, "gpu_orch: could not obtain random bits");
		hex_encode((const char *) bits, sizeof(bits), id);
		id[INSTALLATION_ID_LENGTH] = '\0';
		spi_begin();
		spi_arg_text(&args, id);
		spi_arg_text(&args, system_identifier());
		spi_arg(&args, ObjectIdGetDatum(MyDatabaseId), false);
		spi_arg_time(&args, now);
		spi_run(&make, &args);
		spi_end();
	}
	(void) store_installation_check(installation, now);
}

/* Remember the provider's account that the pods are in. */
void
store_installation_pin(const char *account)
{
	static SpiQuery query = {"UPDATE gpu_orch.installation SET account = $1", 1, {TEXTOID}};
	SpiArgs		args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, account);
	spi_run_one(&query, &args, "pinning the account");
	spi_end();
}

/* Begin a leader's reign: the number that its outcomes are applied under. */
int64
store_installation_new_leader(void)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET leader_epoch = leader_epoch + 1 RETURNING leader_epoch",
		0, {0}
	};
	int64		epoch;

	spi_begin();
	spi_run_one(&query, NULL, "beginning a leader's epoch");
	epoch = spi_int8(0, 1);
	spi_end();
	return epoch;
}

/* Stop creating pods, or go on. */
void
store_installation_pause(bool paused, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET paused = $1 WHERE paused <> $1", 1, {BOOLOID}
	};
	Installation installation;
	SpiArgs		args = SPI_ARGS_INIT;

	store_installation_ensure(&installation, now);
	spi_begin();
	spi_arg_bool(&args, paused);
	if (spi_run(&query, &args) == 1)
		store_event(paused ? "paused" : "resumed", "installation", NULL, now);
	spi_end();
}

/* Make this copy the one that acts; later pods carry a new installation epoch. */
void
store_installation_adopt(TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET hold = false, hold_reason = NULL, epoch = epoch + 1,"
		" system_identifier = $1, database = $2, account = NULL",
		2, {TEXTOID, OIDOID}
	};
	Installation installation;
	SpiArgs		args = SPI_ARGS_INIT;

	store_installation_ensure(&installation, now);
	spi_begin();
	spi_arg_text(&args, system_identifier());
	spi_arg(&args, ObjectIdGetDatum(MyDatabaseId), false);
	spi_run_one(&query, &args, "adopting the installation");
	store_event("adopted", "installation", NULL, now);
	store_alert(ALERT_HOLD, "installation", NULL, now);
	spi_end();
}
