/*
 * queue/bound.c
 *	  What is known of the rows of one shape: where the first claimable one can
 *	  stand, and where none stands.
 *
 * Under an old snapshot the index keeps the entries of rows that are gone. A scan
 * that walked over them once leaves here where they are, so that the next one steps
 * over them: before the bound, and in one gap behind it. What is known may be lost,
 * never wrong. Keeps nothing, takes no lock: queue/places.c keeps the bounds.
 */
#include "postgres.h"

#include "queue/bound.h"
#include "storage/procarray.h"

/* Add a key to those at which rows were put. */
void
queue_puts_add(QueuePuts *puts, const QueueKey *key)
{
	if (queue_key_before(key, &puts->least))
		puts->least = *key;
	if (queue_key_before(&puts->greatest, key))
		puts->greatest = *key;
}

/* Set a bound to that of a shape without rows. */
void
queue_bound_clear(ShapeBound *bound)
{
	memset(bound, 0, sizeof(ShapeBound));
	bound->bound = QUEUE_KEY_LAST;
}

/*
 * Take rows that were put out of what is known to be empty. Where one row was put,
 * least and greatest are its key. last is the greatest key at which a row was put
 * before: behind it there are hardly any entries.
 */
void
queue_bound_put(ShapeBound *bound, const QueuePuts *puts, const QueueKey *last)
{
	QueueGap *gap = &bound->gap;

	if (queue_key_before(&puts->least, &bound->bound))
	{
		/* The entries between the new bound and the old one are those of rows that are gone. */
		if (bound->passed > gap->length && queue_key_before(&puts->greatest, &bound->bound))
		{
			gap->length = bound->passed;
			gap->start = puts->least;
			gap->end = bound->bound;
			gap->n_xids = 0;
		}
		bound->work = true;
		bound->bound = puts->least;
		bound->passed = 0;
	}
	if (gap->length == 0 || !queue_key_before(&puts->least, &gap->end) ||
		!queue_key_before(&gap->start, &puts->greatest))
		return;
	/* The gap is cut in two: keep the part behind the rows, unless that is past the last entry. */
	if (queue_key_before(&gap->start, &puts->least) && queue_key_before(last, &puts->greatest))
		gap->end = puts->least;
	else if (queue_key_before(&puts->greatest, &gap->end))
		gap->start = puts->greatest;
	else if (queue_key_before(&gap->start, &puts->least))
		gap->end = puts->least;
	else
		gap->length = 0;
}

/* Whether there is a gap and all of its transactions are in progress still. */
bool
queue_gap_holds(const QueueGap *gap)
{
	if (gap->length == 0)
		return false;
	for (int i = 0; i < gap->n_xids; i++)
		if (!TransactionIdIsInProgress(gap->xids[i]))
			return false;
	return true;
}
