/*
 * store/installation.c
 *	  Who we are to the provider, and whether this copy may act: all access to
 *	  installation.
 *
 * The row is made on first use, with a random id, and remembers the incarnation
 * that acts: server, database, timeline and site. A restored dump, a copy of the
 * database or of the server's files finds that it is somewhere else and goes on
 * hold: it serves tasks, but creates and deletes nothing, until
 * adopt_installation(). What is somewhere else is decided by store/site.c.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "store/alert.h"
#include "store/event.h"
#include "store/holder.h"
#include "store/installation.h"
#include "store/secret.h"
#include "store/sequence.h"
#include "store/site.h"
#include "utils/builtins.h"

#define ROW_COLUMNS \
	"id, epoch, leader_epoch, hold, paused, killing_since IS NOT NULL, coalesce(account, '')," \
	" created_at, taken_over_at"

static void
installation_read_row(Installation *installation)
{
	strlcpy(installation->id, spi_text(0, 1), sizeof(installation->id));
	installation->epoch = spi_int4(0, 2);
	installation->leader_epoch = spi_int8(0, 3);
	installation->hold = spi_bool(0, 4);
	installation->paused = spi_bool(0, 5);
	installation->killing = spi_bool(0, 6);
	strlcpy(installation->account, spi_text(0, 7), sizeof(installation->account));
	installation->created_at = spi_time(0, 8);
	installation->taken_over_at = spi_time(0, 9);
}

/* Of this process, where it is a leader. */
static int64 acting_epoch = 0;

/* Read the row; false if it has not been made yet. */
bool
store_installation_read(Installation *installation)
{
	static SpiQuery query = { "SELECT " ROW_COLUMNS " FROM gpu_orch.installation" };
	bool found;

	spi_begin();
	found = spi_read(&query, NULL, 1) == 1;
	if (found)
		installation_read_row(installation);
	spi_end();
	return found;
}

/*
 * Read the row and keep it as it is until the end of the transaction: a pause that has
 * been committed is seen, and one that has not waits. False if there is no row, or
 * somebody is just changing it.
 */
bool
store_installation_share(Installation *installation)
{
	static SpiQuery query = { "SELECT " ROW_COLUMNS
							  " FROM gpu_orch.installation FOR SHARE SKIP LOCKED" };
	bool found;

	spi_begin();
	found = spi_run(&query, NULL) == 1;
	if (found)
		installation_read_row(installation);
	spi_end();
	return found;
}

/* Read where this installation acted last, as the row has it. */
static void
read_incarnation(Incarnation *was)
{
	static SpiQuery query = {
		"SELECT system_identifier, database::bigint, timeline, site, host FROM gpu_orch.installation"
	};

	spi_begin();
	spi_run_one(&query, NULL, "reading where the installation acts");
	was->system_identifier = spi_text(0, 1);
	was->database = (Oid) spi_int8(0, 2);
	was->timeline = spi_int4(0, 3);
	was->site = spi_text(0, 4);
	was->host = spi_text(0, 5);
	spi_end();
}

/* Record where this installation acts from now on. */
static void
write_incarnation(const Incarnation *mine)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET system_identifier = $1, database = $2, timeline = $3,"
		" site = $4, host = $5"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, mine->system_identifier);
	spi_arg(&args, OIDOID, ObjectIdGetDatum(mine->database), false);
	spi_arg(&args, INT4OID, Int32GetDatum(mine->timeline), mine->timeline == 0);
	spi_arg_text(&args, mine->site);
	spi_arg_text(&args, mine->host);
	spi_run_one(&query, &args, "recording where the installation acts");
	spi_end();
}

/* Begin a new installation epoch, off hold: later pods carry it in their names. */
static void
begin_epoch(TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET hold = false, hold_reason = NULL, epoch = epoch + 1,"
		" taken_over_at = $1, account = NULL"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "beginning an epoch of the installation");
	spi_end();
}

/*
 * Whether a subscription replicates our tables to here while the installation acts
 * elsewhere, or is not here at all yet. Nothing may be written here then: whatever the
 * publisher does next would meet it.
 */
bool
store_installation_is_fed(void)
{
	static SpiQuery query = {
		"SELECT 1 FROM pg_catalog.pg_subscription_rel s"
		" JOIN pg_catalog.pg_class c ON c.oid = s.srrelid"
		" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		" WHERE n.nspname = 'gpu_orch' AND NOT EXISTS (SELECT 1 FROM gpu_orch.installation i"
		"  WHERE i.system_identifier = $1 AND i.database = $2) LIMIT 1"
	};
	Incarnation mine;
	SpiArgs args = SPI_ARGS_INIT;
	bool fed;

	store_site_place(&mine);
	spi_begin();
	spi_arg_text(&args, mine.system_identifier);
	spi_arg(&args, OIDOID, ObjectIdGetDatum(mine.database), false);
	fed = spi_read(&query, &args, 1) == 1;
	spi_end();
	return fed;
}

/* Raise 55000 where nothing may be written, see store_installation_is_fed(). */
static void
refuse_where_fed(void)
{
	if (store_installation_is_fed())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a subscription replicates another installation to this database"),
				 errhint("If this copy is to take over, drop the subscription and call "
						 "gpu_orch.adopt_installation().")));
}

/*
 * Stop to create and delete pods until somebody adopts this copy. The reason
 * completes "this installation was". Does nothing where it is on hold already.
 */
void
store_installation_hold(Installation *installation, const char *alert, const char *reason,
						TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET hold = true, hold_reason = $1 WHERE NOT hold"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, reason);
	if (spi_run(&query, &args) == 1)
	{
		store_sequences_pass();
		store_event("hold", "installation", store_detail("why", reason), now);
		store_alert(alert, "installation", reason, now);
		ereport(WARNING,
				(errmsg("gpu_orch is on hold: this installation was %s", reason),
				 errhint("If this copy is to take over the fleet, call "
						 "gpu_orch.adopt_installation().")));
	}
	spi_end();
	installation->hold = true;
}

/*
 * Note that another copy acts under this epoch, so that an adoption of this one
 * begins a later one. A name could claim any number: one far off is not believed.
 */
void
store_installation_saw_epoch(int64 epoch)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET epoch = $1 WHERE epoch < $1 AND epoch + 1000 > $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, epoch);
	spi_run(&query, &args);
	spi_end();
}

/*
 * Compare where we are with where the installation acts, and act on the difference. The caller has
 * locked the row, which is read anew: somebody may have adopted this copy meanwhile.
 */
static void
installation_compare(Installation *installation, const Incarnation *mine, const SiteList *others,
					 TimestampTz now)
{
	Incarnation was;
	StringInfoData difference;

	if (!store_installation_read(installation) || installation->hold)
		return;
	initStringInfo(&difference);
	read_incarnation(&was);
	switch (store_site_compare(&was, mine, others, &difference))
	{
		case SITE_SAME:
			break;
		case SITE_RECORD:
			write_incarnation(mine);
			break;
		case SITE_TAKES_OVER:
			write_incarnation(mine);
			begin_epoch(now);
			store_event(
				"taken_over", "installation",
				store_detail("why",
							 psprintf("promoted at a listed site: timeline %d instead of %d",
									  mine->timeline, was.timeline)),
				now);
			(void) store_installation_read(installation);
			break;
		case SITE_DIFFERS:
			store_installation_hold(installation, ALERT_HOLD, difference.data, now);
			break;
	}
}

/* Whether anything is to be done about where we are. */
static bool
differs(const Incarnation *mine, const SiteList *others)
{
	Incarnation was;
	StringInfoData difference;

	initStringInfo(&difference);
	read_incarnation(&was);
	return store_site_compare(&was, mine, others, &difference) != SITE_SAME;
}

/*
 * For the leader: read the row, and note if this copy is not where it acted last; 55P03 where that
 * is to be noted and somebody keeps the row. False if there is none yet. The leader never makes it: a dump that is being
 * restored brings its own. A site token file that cannot be used is an error for a
 * leader that begins; one that knows where it is goes on.
 */
bool
store_installation_check(Installation *installation, bool begins, TimestampTz now)
{
	Incarnation mine;
	SiteList others;
	const char *wrong;

	if (!store_installation_read(installation))
		return false;
	if (installation->hold)
		return true;
	wrong = store_site_read(&mine, &others);
	if (wrong == NULL && differs(&mine, &others))
	{
		store_installation_take(now);
		installation_compare(installation, &mine, &others, now);
	}
	else if (wrong != NULL && begins)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("%s", wrong),
			 errhint("Repair the file that gpu_orch.site_token_file names. Until then nobody knows "
					 "whether this copy of the database may act.")));
	return true;
}

/*
 * Make the row if it is not there, then see whether it is of this server and this
 * database: for functions that people and workers call.
 */
void
store_installation_ensure(Installation *installation, TimestampTz now)
{
	static SpiQuery make = {
		"INSERT INTO gpu_orch.installation (id, system_identifier, database, created_at)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
	};
	Incarnation mine;
	SiteList nobody = { 0 };

	refuse_where_fed();
	store_site_place(&mine);
	if (!store_installation_read(installation))
	{
		uint8 bits[INSTALLATION_ID_LENGTH / 2];
		char id[INSTALLATION_ID_LENGTH + 1];
		SpiArgs args = SPI_ARGS_INIT;

		if (!pg_strong_random(bits, sizeof(bits)))
			elog(ERROR, "gpu_orch: could not obtain random bits");
		hex_encode((const char *) bits, sizeof(bits), id);
		id[INSTALLATION_ID_LENGTH] = '\0';
		spi_begin();
		spi_arg_text(&args, id);
		spi_arg_text(&args, mine.system_identifier);
		spi_arg(&args, OIDOID, ObjectIdGetDatum(mine.database), false);
		spi_arg_time(&args, now);
		spi_run(&make, &args);
		spi_end();
		store_secret_make();
		(void) store_installation_read(installation);
	}
	if (!installation->hold && differs(&mine, &nobody))
	{
		store_installation_lock();
		installation_compare(installation, &mine, &nobody, now);
	}
}

/* Remember the provider's account that the pods are in. */
void
store_installation_pin(const char *account)
{
	static SpiQuery query = { "UPDATE gpu_orch.installation SET account = $1" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, account);
	spi_run_one(&query, &args, "pinning the account");
	spi_end();
}

/*
 * Lock the row until the end of the transaction: one at a time creates pods, so that what all of
 * them share, as a budget, is counted once. Before the lock of a pool. Waits for whoever has it.
 */
void
store_installation_lock(void)
{
	static SpiQuery query = { "SELECT 1 FROM gpu_orch.installation FOR NO KEY UPDATE" };

	spi_begin();
	spi_run(&query, NULL);
	spi_end();
}

/* Lock the row for the leader, which cannot go on without it; 55P03 while somebody keeps it. */
void
store_installation_take(TimestampTz now)
{
	if (!store_holder_try(KEPT_INSTALLATION, 0, true, now))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("a transaction keeps the row of the installation")));
}

/* Begin a leader's reign: the number that its outcomes are applied under. */
int64
store_installation_new_leader(void)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET leader_epoch = leader_epoch + 1 RETURNING leader_epoch"
	};

	spi_begin();
	spi_run_one(&query, NULL, "beginning a leader's epoch");
	acting_epoch = spi_int8(0, 1);
	spi_end();
	return acting_epoch;
}

/* The epoch of the last reign that this process began; 0 in every other process than a leader. */
int64
store_installation_acting_epoch(void)
{
	return acting_epoch;
}

/* Stop creating pods, or go on. */
void
store_installation_pause(bool paused, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.installation SET paused = $1,"
		" killing_since = CASE WHEN $1 THEN killing_since END WHERE paused <> $1"
	};
	Installation installation;
	SpiArgs args = SPI_ARGS_INIT;

	store_installation_ensure(&installation, now);
	spi_begin();
	spi_arg_bool(&args, paused);
	if (spi_run(&query, &args) == 1)
		store_event(paused ? "paused" : "resumed", "installation", NULL, now);
	spi_end();
}

/* Stop creating pods and end whatever there is or shows up, until the pause is over. */
void
store_installation_kill(TimestampTz now)
{
	static SpiQuery query = { "UPDATE gpu_orch.installation SET paused = true,"
							  " killing_since = coalesce(killing_since, $1)" };
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_time(&args, now);
	spi_run_one(&query, &args, "ending the fleet");
	spi_end();
}

/*
 * Make this copy the one that acts, here and under a new epoch. Raises an error
 * where the site token file cannot be used: what is recorded must be right.
 */
void
store_installation_adopt(TimestampTz now)
{
	Installation installation;
	Incarnation mine;
	SiteList others;
	const char *wrong;

	PreventCommandIfReadOnly("adopt_installation()");
	wrong = store_site_read(&mine, &others);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("%s", wrong),
				 errhint("Repair the file that gpu_orch.site_token_file names, and adopt then.")));
	store_installation_ensure(&installation, now);
	store_sequences_pass();
	store_secret_make();
	spi_begin();
	write_incarnation(&mine);
	begin_epoch(now);
	store_event("adopted", "installation", NULL, now);
	store_alert(ALERT_HOLD, "installation", NULL, now);
	store_alert(ALERT_SECOND_OWNER, "installation", NULL, now);
	spi_end();
}
