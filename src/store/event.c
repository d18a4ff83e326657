/*
 * store/event.c
 *	  What changed, and what was decided: all access to event and decision.
 *
 * Both are append-only, but for what store/retention.c removes. The actor is the role that called; the leader acts as the
 * extension's owner.
 */
#include "postgres.h"

#include "base/caller.h"
#include "decide/fsm_worker.h"
#include "miscadmin.h"
#include "db/xact_part.h"
#include "store/event.h"
#include "utils/builtins.h"

/* A jsonb object of one text member, for the detail of an event; NULL for no value. */
Jsonb *
store_detail(const char *key, const char *value)
{
	JsonbParseState *state = NULL;
	JsonbValue item;

	if (value == NULL)
		return NULL;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	item.type = jbvString;
	item.val.string.val = unconstify(char *, key);
	item.val.string.len = strlen(key);
	pushJsonbValue(&state, WJB_KEY, &item);
	item.val.string.val = unconstify(char *, value);
	item.val.string.len = strlen(value);
	pushJsonbValue(&state, WJB_VALUE, &item);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Write an event. With a rule, the states are the rule's; without one, to_state is the only state,
 * and may be NULL.
 */
static void
add_event(const char *kind, const char *subject, int64 worker, const WorkerRule *rule,
		  const char *to_state, Jsonb *detail, TimestampTz now)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.event (at, kind, subject, worker, rule, from_state, to_state, actor,"
		" detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, '{}'))"
	};
	SpiArgs args = SPI_ARGS_INIT;

	spi_begin();
	spi_arg_time(&args, now);
	spi_arg_text(&args, kind);
	spi_arg_text(&args, subject);
	spi_arg(&args, INT8OID, Int64GetDatum(worker), worker == 0);
	spi_arg(&args, INT4OID, Int32GetDatum(rule ? rule->rule : 0), rule == NULL);
	spi_arg_text(&args, rule ? fsm_worker_state_name(rule->from) : NULL);
	spi_arg_text(&args, rule ? fsm_worker_state_name(rule->to) : to_state);
	spi_arg_text(&args, caller_name());
	spi_arg_jsonb(&args, detail);
	spi_run_one(&query, &args, "recording an event");
	spi_end();
}

/* Record that something changed; detail may be NULL. */
void
store_event(const char *kind, const char *subject, Jsonb *detail, TimestampTz now)
{
	add_event(kind, subject, 0, NULL, NULL, detail, now);
}

/* What store_event() is given. */
typedef struct Event
{
	const char *kind;
	const char *subject;
	Jsonb *detail;
	TimestampTz now;
} Event;

static void
write_event(void *arg)
{
	const Event *event = arg;

	store_event(event->kind, event->subject, event->detail, event->now);
}

/* Record something as store_event() does, unless a lock is in the way for some milliseconds; false then. */
bool
store_event_within(int64 ms, const char *kind, const char *subject, Jsonb *detail, TimestampTz now)
{
	Event event = { .kind = kind, .subject = subject, .detail = detail, .now = now };

	return xact_part_within(ms, write_event, &event);
}

/* Record a worker's move: the event is named after its cause and carries the rule. */
void
store_event_move(const char *subject, int64 worker, const WorkerRule *rule, const char *detail,
				 TimestampTz now)
{
	add_event(rule->cause, subject, worker, rule, NULL, store_detail("why", detail), now);
}

/* Record that a worker was added, in this state; detail may be NULL. */
void
store_event_added(const char *kind, const char *subject, int64 worker, WorkerState state,
				  Jsonb *detail, TimestampTz now)
{
	add_event(kind, subject, worker, NULL, fsm_worker_state_name(state), detail, now);
}

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, token, &value);
}

/* All terms of a plan: [{"term", "value", "bound", "note"}, ...]. */
static Jsonb *
terms_of(const PlanResult *plan)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < plan->n_terms; i++)
	{
		const PlanTerm *term = &plan->terms[i];
		JsonbValue value;

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_text(&state, WJB_KEY, "term");
		push_text(&state, WJB_VALUE, term->name);
		push_text(&state, WJB_KEY, "value");
		value.type = jbvNumeric;
		value.val.numeric =
			DatumGetNumeric(DirectFunctionCall1(float8_numeric, Float8GetDatum(term->value)));
		pushJsonbValue(&state, WJB_VALUE, &value);
		push_text(&state, WJB_KEY, "bound");
		value.type = jbvBool;
		value.val.boolean = term->bound;
		pushJsonbValue(&state, WJB_VALUE, &value);
		if (term->note[0] != '\0')
		{
			push_text(&state, WJB_KEY, "note");
			push_text(&state, WJB_VALUE, term->note);
		}
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/*
 * Record a scaling decision and return its id, or 0 where nothing is asked for
 * and the pool's last decision wanted the same for the same reason: an idle
 * fleet writes nothing.
 */
int64
store_decision(int32 pool, const char *policy, const PlanResult *plan, int ended, TimestampTz now)
{
	static SpiQuery last = {
		"SELECT desired, bound_by FROM gpu_orch.decision WHERE pool = $1 ORDER BY id DESC LIMIT 1"
	};
	static SpiQuery add = {
		"INSERT INTO gpu_orch.decision (pool, at, policy, desired, created, ended, bound_by, terms) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id"
	};
	SpiArgs pool_arg = SPI_ARGS_INIT;
	SpiArgs args = SPI_ARGS_INIT;
	int64 id = 0;
	bool same;

	spi_begin();
	spi_arg_int4(&pool_arg, pool);
	same = spi_read(&last, &pool_arg, 1) == 1 && spi_int4(0, 1) == plan->desired &&
		strcmp(spi_text(0, 2), plan->bound_by) == 0;
	if (!same || plan->create > 0 || ended > 0)
	{
		spi_arg_int4(&args, pool);
		spi_arg_time(&args, now);
		spi_arg_text(&args, policy);
		spi_arg_int4(&args, plan->desired);
		spi_arg_int4(&args, plan->create);
		spi_arg_int4(&args, ended);
		spi_arg_text(&args, plan->bound_by);
		spi_arg_jsonb(&args, terms_of(plan));
		spi_run_one(&add, &args, "recording a decision");
		id = spi_int8(0, 1);
	}
	spi_end();
	return id;
}
