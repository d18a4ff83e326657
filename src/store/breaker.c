/*
 * store/breaker.c
 *	  The breakers of images: all access to image_breaker.
 *
 * A row is there while the last pods of an image failed. What opens and closes a
 * breaker is decide/offer.c's affair; here its state is kept, its canary is named, and
 * the alert is raised. Knows nothing of offers: what an image does is no fault of
 * theirs.
 */
#include "postgres.h"

#include "store/alert.h"
#include "store/breaker.h"

/* What a breaker's row says; a canary of which all is learned is none any more. */
#define BREAKER_COLUMNS \
	"b.state, b.failures, b.must_work, b.canaries, b.retry_at," \
	" coalesce((SELECT f.worker FROM gpu_orch.worker_profile f" \
	"           WHERE f.worker = b.canary AND f.learned < 3), 0)"

static void
read_breaker(PlanBreaker *breaker)
{
	if (!plan_breaker_parse(spi_text(0, 1), &breaker->state))
		elog(ERROR, "gpu_orch: unknown state of a breaker \"%s\"", spi_text(0, 1));
	breaker->failures = spi_int4(0, 2);
	breaker->must_work = spi_bool(0, 3);
	breaker->canaries = spi_int4(0, 4);
	breaker->retry_at = spi_time(0, 5);
	breaker->canary = spi_int8(0, 6);
	if (breaker->state == BREAKER_HALF_OPEN && breaker->canary == 0)
		breaker->state = BREAKER_OPEN;
}

/*
 * Read the breaker of an image; a closed one, and false, where there is no row. With
 * lock the row is locked until the end of the transaction.
 */
static bool
breaker_load(const char *image, bool lock, PlanBreaker *breaker)
{
	static SpiQuery plain = { "SELECT " BREAKER_COLUMNS
							  " FROM gpu_orch.image_breaker b WHERE b.image = $1" };
	static SpiQuery locking = { "SELECT " BREAKER_COLUMNS
								" FROM gpu_orch.image_breaker b WHERE b.image = $1"
								" FOR NO KEY UPDATE OF b" };
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	memset(breaker, 0, sizeof(*breaker));
	spi_begin();
	spi_arg_text(&args, image);
	found = (lock ? spi_run(&locking, &args) : spi_read(&plain, &args, 1)) == 1;
	if (found)
		read_breaker(breaker);
	spi_end();
	return found;
}

/* Write the breaker of an image; cause is what the last failure was. */
static void
breaker_save(const char *image, const PlanBreaker *breaker, const char *cause, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.image_breaker AS b (image, state, failures, must_work, canaries,"
		" last_cause, opened_at, retry_at, canary)"
		" VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $2 <> 'closed' THEN $9 END, $7, $8)"
		" ON CONFLICT (image) DO UPDATE SET state = $2, failures = $3, must_work = $4, canaries = $5,"
		" last_cause = $6, opened_at = CASE WHEN $2 <> 'closed' THEN coalesce(b.opened_at, $9) END,"
		" retry_at = $7, canary = $8"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, image);
	spi_arg_text(&args, plan_breaker_name(breaker->state));
	spi_arg_int4(&args, breaker->failures);
	spi_arg_bool(&args, breaker->must_work);
	spi_arg_int4(&args, breaker->canaries);
	spi_arg_text(&args, cause);
	spi_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(breaker->retry_at), breaker->retry_at == 0);
	spi_arg(&args, INT8OID, Int64GetDatum(breaker->canary), breaker->canary == 0);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/*
 * Lock the breaker of an image, if there is one. False if somebody has it: for the leader, which
 * waits for nobody.
 */
bool
store_breaker_is_free(const char *image)
{
	static SpiQuery query = {
		"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM gpu_orch.image_breaker WHERE image = $1)"
		" UNION ALL "
		"(SELECT 1 FROM (SELECT 1 FROM gpu_orch.image_breaker WHERE image = $1"
		"                FOR NO KEY UPDATE SKIP LOCKED) b)"
	};
	SpiArgs args = SPI_ARGS_INIT;
	bool found;

	spi_begin();
	spi_arg_text(&args, image);
	found = spi_run(&query, &args) == 1;
	spi_end();
	return found;
}

/* How many pods of an image may be created now; INT_MAX: as many as are wanted. */
int
store_breaker_room(const char *image, TimestampTz now)
{
	PlanBreaker breaker;

	(void) breaker_load(image, false, &breaker);
	return plan_breaker_room(&breaker, now);
}

/*
 * May one more pod of an image be announced? Locks its breaker until the end of the
 * transaction. *canary tells whether that pod is the canary: then the caller names its
 * worker with store_breaker_send_canary.
 */
bool
store_breaker_admits(const char *image, bool *canary, TimestampTz now)
{
	PlanBreaker breaker;

	(void) breaker_load(image, true, &breaker);
	*canary = breaker.state != BREAKER_CLOSED;
	return plan_breaker_room(&breaker, now) > 0;
}

/* Name the canary of an image, whose breaker the caller has locked. */
void
store_breaker_send_canary(const char *image, int64 worker)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.image_breaker SET state = 'half_open', canary = $2 WHERE image = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_text(&args, image);
	spi_arg_int8(&args, worker);
	spi_run_one(&query, &args, "naming a canary");
	spi_end();
}

/*
 * Note that a worker of an image failed for this cause, after it lived for so long (in
 * microseconds). min_workers is its pool's. True while the breaker stays closed.
 */
bool
store_breaker_failed(const char *image, const char *cause, int64 worker, int min_workers,
					 int64 lived, TimestampTz now)
{
	PlanBreaker breaker;

	(void) breaker_load(image, true, &breaker);
	(void) plan_breaker_failed(&breaker, plan_offer_blame(cause), worker,
							   plan_breaker_threshold(min_workers), lived, now);
	breaker_save(image, &breaker, cause, now);
	return breaker.state == BREAKER_CLOSED;
}

/* Note that a worker of an image came up or, if claimed, that it took a task. */
void
store_breaker_worked(const char *image, bool claimed)
{
	static SpiQuery query = { "DELETE FROM gpu_orch.image_breaker WHERE image = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	PlanBreaker breaker;

	if (!breaker_load(image, true, &breaker) || !plan_breaker_worked(&breaker, claimed))
		return;
	spi_begin();
	spi_arg_text(&args, image);
	spi_run_one(&query, &args, "closing a breaker");
	spi_end();
}

/* Have the next canary of a pool's image go at once: somebody looked after it. */
void
store_breaker_retry(int32 pool, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.image_breaker b SET retry_at = least(b.retry_at, $2), canaries = 0"
		" FROM gpu_orch.pool p WHERE p.id = $1 AND b.image = p.image AND b.state <> 'closed'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_arg_time(&args, now);
	spi_run(&query, &args);
	spi_end();
}

/* Forget the breakers of images that no pool uses any more. */
static void
forget_unused(void)
{
	static SpiQuery query = {
		"DELETE FROM gpu_orch.image_breaker WHERE image IN (SELECT b.image"
		" FROM gpu_orch.image_breaker b WHERE NOT EXISTS (SELECT 1 FROM gpu_orch.pool p"
		"  WHERE p.image = b.image AND p.dropped_at IS NULL) FOR UPDATE SKIP LOCKED)"
	};

	spi_begin();
	spi_run(&query, NULL);
	spi_end();
}

/* Raise the alerts of the images whose breakers are open, and clear the others. */
void
store_breaker_watch(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT coalesce(b.image, a.subject), CASE WHEN b.state <> 'closed' THEN"
		" pg_catalog.format('%s pods failed in a row, the last one as %s; the next one is tried at %s', b.failures,"
		"        b.last_cause, b.retry_at) END"
		" FROM gpu_orch.image_breaker b FULL JOIN (SELECT x.subject FROM gpu_orch.alert x"
		"   WHERE x.name = '" ALERT_IMAGE_BROKEN
		"' AND x.cleared_at IS NULL) a ON a.subject = b.image"
	};
	char **images;
	char **details;
	int n;

	forget_unused();
	spi_begin();
	n = (int) spi_read(&query, NULL, 0);
	images = SPI_palloc((n + 1) * sizeof(char *));
	details = SPI_palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		images[i] = spi_text(i, 1);
		details[i] = spi_text(i, 2);
	}
	spi_end();
	for (int i = 0; i < n; i++)
		store_alert(ALERT_IMAGE_BROKEN, images[i], details[i], now);
}
