/*
 * store/offer_stats.c
 *	  What pods taught about their offers: all access to offer_stats, and what is
 *	  learned of each worker (image, boot_expected, booted_in and learned of its
 *	  profile).
 *
 * The leader alone learns, at each tick, from what stands in the tables: that a pod
 * came up, that it took a task, how it ended. So nothing is learned twice and nothing
 * is lost with a leader, and the workers' calls know nothing of it. Whom an end speaks
 * against, and what counts fade to, is decide/offer.c's affair.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "store/alert.h"
#include "store/breaker.h"
#include "store/offer_stats.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* So many answers that the request is wrong are believed, once every offer gave one. */
#define BELIEVED_REFUSALS "3"

/* A lack of capacity is news for so long. */
#define CAPACITY_NEWS "interval '30 minutes'"

/* How much is learned of a worker; see worker_profile. */
#define LEARNED_READY 1
#define LEARNED_CLAIM 2
#define LEARNED_END 3

/* Nearly all, of boot times; expected of the next pods once there are so many of them. */
#define NEARLY_ALL 0.95
#define ENOUGH_BOOTS "8"

/* One worker of which there is something to learn. */
typedef struct Lesson
{
	int64 worker;
	int learned;
	int32 pool;
	int min_workers;
	char *image;
	char *gpu_type;	   /* NULL: its create is not known */
	char *data_center; /* "": any */
	bool ready;
	bool claimed;
	double booted_in; /* s; 0: not known */
	char *cause;	  /* of its end; NULL: it has not ended */
	double lived;	  /* s, until its end */
	char *reason;	  /* of the provider's answer to its create */
	char *message;
} Lesson;

/* A row of offer_stats. */
typedef struct Stats
{
	double ready;
	double failed;
	double no_capacity;
	TimestampTz at;
	double boots[PLAN_BOOTS]; /* the newest last */
	int n_boots;
} Stats;

static double
read_float(uint64 row, int column)
{
	bool isnull;
	Datum value = spi_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

/*
 * The workers of which there is something to learn, in the order of their last moves. Rows
 * that somebody has locked wait for the next time.
 */
static int
find_lessons(int64 **workers)
{
	static SpiQuery query = {
		"SELECT f.worker FROM gpu_orch.worker_profile f JOIN gpu_orch.worker w ON w.no = f.worker"
		" WHERE f.image IS NOT NULL AND f.learned < 3 AND (w.state IN ('terminating', 'terminated')"
		"  OR f.learned < 1 AND f.registered_at IS NOT NULL"
		"  OR f.learned < 2 AND (w.busy_at > f.registered_at"
		"     OR EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no)))"
		" ORDER BY w.state_since, w.no FOR NO KEY UPDATE OF f SKIP LOCKED"
	};
	int n;

	spi_begin();
	n = (int) spi_run(&query, NULL);
	*workers = SPI_palloc((n + 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		(*workers)[i] = spi_int8(i, 1);
	spi_end();
	return n;
}

/* What there is to learn of one worker, which the caller has locked. */
static void
read_lesson(int64 worker, Lesson *lesson)
{
	static SpiQuery query = {
		"SELECT f.learned::int, w.pool, coalesce(p.min_workers, 0), f.image, o.gpu_type,"
		" coalesce(o.data_center, ''), f.registered_at IS NOT NULL,"
		" coalesce(w.busy_at > f.registered_at, false)"
		"  OR EXISTS (SELECT 1 FROM gpu_orch.lease l WHERE l.worker = w.no),"
		" coalesce(f.booted_in, extract(epoch FROM f.registered_at - w.created_at)::float8),"
		" e.kind, extract(epoch FROM e.at - w.created_at)::float8, o.reason, o.message"
		" FROM gpu_orch.worker_profile f JOIN gpu_orch.worker w ON w.no = f.worker"
		" LEFT JOIN gpu_orch.pool p ON p.id = w.pool"
		" LEFT JOIN LATERAL (SELECT * FROM gpu_orch.cloud_op x WHERE x.worker = f.worker"
		"                    AND x.kind = 'create' ORDER BY x.id DESC LIMIT 1) o ON true"
		" LEFT JOIN LATERAL (SELECT x.kind, x.at FROM gpu_orch.event x WHERE x.worker = f.worker"
		"                    AND x.to_state IN ('terminating', 'terminated')"
		"                    ORDER BY x.id LIMIT 1) e ON true"
		" WHERE f.worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_run_one(&query, &args, "reading what a worker taught");
	lesson->worker = worker;
	lesson->learned = spi_int4(0, 1);
	lesson->pool = spi_int4(0, 2);
	lesson->min_workers = spi_int4(0, 3);
	lesson->image = spi_text(0, 4);
	lesson->gpu_type = spi_text(0, 5);
	lesson->data_center = spi_text(0, 6);
	lesson->ready = spi_bool(0, 7);
	lesson->claimed = spi_bool(0, 8);
	lesson->booted_in = read_float(0, 9);
	lesson->cause = spi_text(0, 10);
	lesson->lived = read_float(0, 11);
	lesson->reason = spi_text(0, 12);
	lesson->message = spi_text(0, 13);
	spi_end();
}

/*
 * Read what is known of a lesson's offer, as much as it is worth now, and lock it; nothing
 * where there is no row.
 */
static void
offer_stats_load(const Lesson *lesson, Stats *stats, TimestampTz now)
{
	static SpiQuery query = {
		"SELECT ready, failed, no_capacity, stats_at, boots FROM gpu_orch.offer_stats"
		" WHERE pool = $1 AND gpu_type = $2 AND data_center = $3 FOR NO KEY UPDATE"
	};
	SpiArgs args = SPI_ARGS_INIT;

	memset(stats, 0, sizeof(*stats));
	spi_begin();
	spi_arg_int4(&args, lesson->pool);
	spi_arg_text(&args, lesson->gpu_type);
	spi_arg_text(&args, lesson->data_center);
	if (spi_run(&query, &args) == 1)
	{
		double age = (double) (now - spi_time(0, 4)) / USECS_PER_SEC;
		bool isnull;
		Datum *elements;

		stats->ready = plan_offer_decay(read_float(0, 1), age);
		stats->failed = plan_offer_decay(read_float(0, 2), age);
		stats->no_capacity = plan_offer_decay(read_float(0, 3), age);
		deconstruct_array(DatumGetArrayTypeP(spi_datum(0, 5, &isnull)), FLOAT8OID, sizeof(float8),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, NULL, &stats->n_boots);
		stats->n_boots = Min(stats->n_boots, PLAN_BOOTS);
		for (int i = 0; i < stats->n_boots; i++)
			stats->boots[i] = DatumGetFloat8(elements[i]);
	}
	spi_end();
}

/* Write what is known of a lesson's offer. */
static void
offer_stats_save(const Lesson *lesson, const Stats *stats, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.offer_stats (pool, gpu_type, data_center, ready, failed, no_capacity,"
		" stats_at, boots, boot_p95) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
		" ON CONFLICT (pool, gpu_type, data_center) DO UPDATE SET ready = $4, failed = $5,"
		" no_capacity = $6, stats_at = $7, boots = $8, boot_p95 = $9"
	};
	SpiArgs args = SPI_ARGS_INIT;
	Datum boots[PLAN_BOOTS];
	ArrayType *array;

	for (int i = 0; i < stats->n_boots; i++)
		boots[i] = Float8GetDatum(stats->boots[i]);
	array = construct_array(boots, stats->n_boots, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL,
							TYPALIGN_DOUBLE);
	spi_begin();
	spi_arg_int4(&args, lesson->pool);
	spi_arg_text(&args, lesson->gpu_type);
	spi_arg_text(&args, lesson->data_center);
	spi_arg(&args, FLOAT8OID, Float8GetDatum(stats->ready), false);
	spi_arg(&args, FLOAT8OID, Float8GetDatum(stats->failed), false);
	spi_arg(&args, FLOAT8OID, Float8GetDatum(stats->no_capacity), false);
	spi_arg_time(&args, now);
	spi_arg(&args, FLOAT8ARRAYOID, PointerGetDatum(array), false);
	spi_arg(&args, FLOAT8OID,
			Float8GetDatum(plan_offer_quantile(stats->boots, stats->n_boots, NEARLY_ALL)),
			stats->n_boots == 0);
	spi_run(&query, &args);
	spi_end();
}

/* Keep one more boot time, in place of the oldest where there is no room. */
static void
add_boot(Stats *stats, double seconds)
{
	if (stats->n_boots == PLAN_BOOTS)
	{
		memmove(stats->boots, stats->boots + 1, (PLAN_BOOTS - 1) * sizeof(double));
		stats->n_boots--;
	}
	stats->boots[stats->n_boots++] = seconds;
}

/* Note what an offer said when it refused: kind is a word of refused_for. */
static void
note_refusal(const Lesson *lesson, const char *kind, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.offer_stats SET refused_for = $4, refused_at = $5, refusal = $6"
		" WHERE pool = $1 AND gpu_type = $2 AND data_center = $3"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, lesson->pool);
	spi_arg_text(&args, lesson->gpu_type);
	spi_arg_text(&args, lesson->data_center);
	spi_arg_text(&args, kind);
	spi_arg_time(&args, now);
	spi_arg_text(&args, lesson->message);
	spi_run_one(&query, &args, "noting a refusal");
	spi_end();
}

/* The kind of refusal that a create met; NULL: none that says anything of offer or request. */
static const char *
refusal_kind(const Lesson *lesson)
{
	static const char *const kinds[][2] = { { "capacity", "capacity" },
											{ "invalid", "invalid" },
											{ "not_found", "invalid" } };

	if (strcmp(lesson->cause, "create_refused") != 0 || lesson->reason == NULL)
		return NULL;
	for (int i = 0; i < lengthof(kinds); i++)
		if (strcmp(kinds[i][0], lesson->reason) == 0)
			return kinds[i][1];
	return NULL;
}

/*
 * What the end of a worker teaches. A pod of a broken image teaches nothing of its offer.
 * A boot that was given up counts as one that took so long: else the slow ones would
 * never be seen.
 */
static void
learn_end(const Lesson *lesson, Stats *stats, TimestampTz now)
{
	bool refused = strcmp(lesson->cause, "create_refused") == 0;
	const char *cause = refused && lesson->reason != NULL ? lesson->reason : lesson->cause;
	PlanBlame blame = plan_offer_blame(cause);

	if ((blame == BLAME_BOOT || blame == BLAME_WORK) &&
		!store_breaker_failed(lesson->image, cause, lesson->worker, lesson->min_workers,
							  (int64) (lesson->lived * USECS_PER_SEC), now))
		return;
	if (blame != BLAME_NOBODY && !refused)
		stats->failed += 1;
	if (strcmp(cause, "spawn_timeout") == 0 || strcmp(cause, "no_runtime") == 0)
		add_boot(stats, lesson->lived);
}

/* Note how much is learned of a worker. */
static void
mark(const Lesson *lesson)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET learned = $2, booted_in = $3, passed_since ="
		" CASE WHEN $2 < 2 THEN passed_since END WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;
	int16 learned = lesson->cause != NULL ? LEARNED_END :
		lesson->claimed					  ? LEARNED_CLAIM :
											LEARNED_READY;

	spi_begin();
	spi_arg_int8(&args, lesson->worker);
	spi_arg(&args, INT2OID, Int16GetDatum(learned), false);
	spi_arg(&args, FLOAT8OID, Float8GetDatum(lesson->booted_in), lesson->booted_in <= 0);
	spi_run_one(&query, &args, "noting what a worker taught");
	spi_end();
}

static void
learn_one(const Lesson *lesson, TimestampTz now)
{
	Stats stats;
	const char *kind;

	if (lesson->gpu_type != NULL)
		offer_stats_load(lesson, &stats, now);
	else
		memset(&stats, 0, sizeof(stats));
	if (lesson->ready && lesson->learned < LEARNED_READY)
	{
		stats.ready += 1;
		add_boot(&stats, lesson->booted_in);
		store_breaker_worked(lesson->image, false);
	}
	if (lesson->claimed && lesson->learned < LEARNED_CLAIM)
		store_breaker_worked(lesson->image, true);
	if (lesson->cause != NULL)
		learn_end(lesson, &stats, now);
	mark(lesson);
	if (lesson->gpu_type == NULL)
		return;
	kind = lesson->cause != NULL ? refusal_kind(lesson) : NULL;
	if (kind != NULL && strcmp(kind, "capacity") == 0)
		stats.no_capacity += 1;
	offer_stats_save(lesson, &stats, now);
	if (kind != NULL)
		note_refusal(lesson, kind, now);
}

/*
 * Learn from all that has happened to pods since the last time; what a session keeps waits for the
 * next one.
 */
void
store_offer_learn(TimestampTz now)
{
	int64 *workers;
	int n = find_lessons(&workers);

	for (int i = 0; i < n; i++)
	{
		Lesson lesson;

		read_lesson(workers[i], &lesson);
		if (store_breaker_is_free(lesson.image))
			learn_one(&lesson, now);
	}
}

/* Every offer of a pool was refused since it last gave a pod, and says that the request is wrong. */
#define ALL_REFUSE \
	"coalesce(bool_and(o.refusals > 0 AND s.refused_for = 'invalid'), false)" \
	" AND sum(o.refusals) >= " BELIEVED_REFUSALS

/* The offers that a pool may use by their price, with what is known of them. */
#define OFFERS_WITH_STATS \
	"gpu_orch.offer o JOIN gpu_orch.pool q ON q.id = o.pool AND (q.max_price_per_hour IS NULL" \
	" OR o.price_micros <= q.max_price_per_hour * 1000000) LEFT JOIN gpu_orch.offer_stats s ON s.pool = o.pool" \
	" AND s.gpu_type = o.gpu_type AND s.data_center = coalesce(o.data_center, '')"

/* Whether nothing is to be asked for a pool until it is altered: all offers refuse the request itself. */
bool
store_offer_all_refuse(int32 pool)
{
	static SpiQuery query = { "SELECT coalesce(" ALL_REFUSE ", false) FROM " OFFERS_WITH_STATS
							  " WHERE o.pool = $1" };
	SpiArgs args = SPI_ARGS_INIT;
	bool all;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_read(&query, &args, 1);
	all = spi_bool(0, 1);
	spi_end();
	return all;
}

/* Raise the alerts of pools whose offers all refuse, and clear the others. */
void
store_offer_watch(TimestampTz now)
{
	static SpiQuery query = {
		"SELECT p.name, x.wrong, NOT x.wrong AND x.starved, x.offers, x.refusal"
		" FROM gpu_orch.pool p, LATERAL (SELECT count(*)::int AS offers,"
		"  coalesce(" ALL_REFUSE ", false) AS wrong,"
		"  coalesce(bool_and(o.refusals > 0 AND s.refused_for IS NOT NULL)"
		"           AND bool_or(s.refused_for = 'capacity')"
		"           AND max(s.refused_at) > $1 - " CAPACITY_NEWS ", false) AS starved,"
		"  (array_agg(s.refusal ORDER BY s.refused_at DESC NULLS LAST))[1] AS refusal"
		"  FROM " OFFERS_WITH_STATS " WHERE o.pool = p.id) x"
		" WHERE p.dropped_at IS NULL ORDER BY p.id"
	};
	SpiArgs args = SPI_ARGS_INIT;
	char ***found;
	int n;

	spi_begin();
	spi_arg_time(&args, now);
	n = (int) spi_read(&query, &args, 0);
	found = SPI_palloc((n + 1) * sizeof(char **));
	for (int i = 0; i < n; i++)
	{
		char *detail =
			psprintf("%d offers: %s", spi_int4(i, 4), spi_null(i, 5) ? "" : spi_text(i, 5));

		found[i] = SPI_palloc(3 * sizeof(char *));
		found[i][0] = spi_text(i, 1);
		found[i][1] = found[i][2] = NULL;
		for (int column = 2; column <= 3; column++)
			if (spi_bool(i, column))
			{
				found[i][column - 1] = SPI_palloc(strlen(detail) + 1);
				strcpy(found[i][column - 1], detail);
			}
	}
	spi_end();
	for (int i = 0; i < n; i++)
	{
		store_alert(ALERT_REQUEST_REFUSED, found[i][0], found[i][1], now);
		store_alert(ALERT_NO_CAPACITY, found[i][0], found[i][2], now);
	}
}

/* Note of which image a new worker's pod is, and what is known of its offer's boot time. */
void
store_offer_expect(int64 worker, const char *image, const OfferRow *offer)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.worker_profile SET image = $2, boot_expected = (SELECT s.boot_p95"
		" FROM gpu_orch.offer_stats s WHERE s.pool = $3 AND s.gpu_type = $4"
		" AND s.data_center = coalesce($5, '') AND cardinality(s.boots) >= " ENOUGH_BOOTS ")"
		" WHERE worker = $1"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int8(&args, worker);
	spi_arg_text(&args, image);
	spi_arg_int4(&args, offer->pool);
	spi_arg_text(&args, offer->gpu_type);
	spi_arg_text(&args, offer->data_center);
	spi_run_one(&query, &args, "noting a worker's image");
	spi_end();
}

/*
 * A pool was altered or dropped: offers that refused the request are asked again, the next
 * canary of its image goes at once, and its alerts begin anew.
 */
void
store_offer_pool_altered(int32 pool, const char *name, TimestampTz now)
{
	static SpiQuery query = {
		"UPDATE gpu_orch.offer o SET refusals = 0, backoff_until = NULL FROM gpu_orch.offer_stats s"
		" WHERE o.pool = $1 AND s.pool = o.pool AND s.gpu_type = o.gpu_type"
		" AND s.data_center = coalesce(o.data_center, '') AND s.refused_for = 'invalid'"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_int4(&args, pool);
	spi_run(&query, &args);
	spi_end();
	store_breaker_retry(pool, now);
	store_alert(ALERT_REQUEST_REFUSED, name, NULL, now);
	store_alert(ALERT_NO_CAPACITY, name, NULL, now);
}
