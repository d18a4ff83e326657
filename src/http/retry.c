/*
 * http/retry.c
 *	  What an answer proves, and how long to wait.
 *
 * Pure: no clock, no state. Doubt is always resolved to "unknown": only a status of
 * the table, with an explanation that could be read, proves that nothing happened.
 * Must not decide whether anything is tried again; that is the leader's.
 */
#include "postgres.h"

#include <curl/curl.h>

#include "http/retry.h"
#include "utils/timestamp.h"

/* What a status says, and for which calls it proves that nothing happened. */
static const struct
{
	int first;
	int last;
	HttpReason reason;
	bool refuses_making;
	bool refuses_removing;
} rules[] = {
	{ 400, 400, HTTP_REASON_INVALID, true, true },
	{ 401, 401, HTTP_REASON_AUTH, true, true },
	{ 402, 402, HTTP_REASON_BALANCE, true, true },
	{ 403, 403, HTTP_REASON_FORBIDDEN, true, true },
	{ 404, 404, HTTP_REASON_NOT_FOUND, true, true },
	{ 409, 409, HTTP_REASON_CONFLICT, false, true },
	{ 413, 413, HTTP_REASON_INVALID, true, true },
	{ 422, 422, HTTP_REASON_INVALID, true, true },
	{ 429, 429, HTTP_REASON_RATE, true, true },
	{ 500, 599, HTTP_REASON_SERVER, false, false },
};

/*
 * Judge a call by how far it came, the status, and whether the answer could be read:
 * after success what was asked for, otherwise an explanation. A removal needs no
 * body to succeed. A read that fails is unknown, whatever the reason.
 */
HttpVerdict
http_retry_judge(HttpEffect effect, HttpPhase phase, int status, bool readable)
{
	HttpVerdict verdict = { HTTP_UNKNOWN, HTTP_REASON_UNREADABLE };

	if (phase != HTTP_COMPLETE)
	{
		verdict.outcome = phase == HTTP_NOTHING_SENT ? HTTP_NOT_SENT : HTTP_UNKNOWN;
		verdict.reason = HTTP_REASON_NETWORK;
		return verdict;
	}
	if (status >= 200 && status <= 299 && (readable || effect == HTTP_REMOVES))
	{
		verdict.outcome = HTTP_DONE;
		verdict.reason = HTTP_REASON_NONE;
		return verdict;
	}
	for (int i = 0; i < lengthof(rules); i++)
	{
		if (status < rules[i].first || status > rules[i].last)
			continue;
		verdict.reason = rules[i].reason;
		if (readable &&
			((effect == HTTP_MAKES && rules[i].refuses_making) ||
			 (effect == HTTP_REMOVES && rules[i].refuses_removing)))
			verdict.outcome = HTTP_REFUSED;
	}
	return verdict;
}

/* A whole number of seconds, nothing else, in milliseconds; -1 if it is none. */
static int64
seconds_to_ms(const char *text)
{
	char *end;
	long seconds;

	if (text[0] < '0' || text[0] > '9')
		return -1;
	seconds = strtol(text, &end, 10);
	if (*end != '\0')
		return -1;
	return seconds < HTTP_RETRY_MAX_MS / 1000 ? (int64) seconds * 1000 : HTTP_RETRY_MAX_MS;
}

/* Retry-After: seconds, or a date, which counts from the answer's own; -1 if it is neither. */
static int64
retry_after_ms(const char *retry_after, TimestampTz date)
{
	int64 wait = seconds_to_ms(retry_after);
	time_t until;

	if (wait >= 0 || date == 0)
		return wait;
	until = curl_getdate(retry_after, NULL);
	if (until < 0)
		return -1;
	return Max(0, (time_t_to_timestamptz((pg_time_t) until) - date) / 1000);
}

/*
 * RateLimit: windows such as "minute";r=0;t=12, of which several may be exhausted
 * (r=0) at once. The time until the last of these opens again; -1 if none is.
 */
static int64
exhausted_ms(const char *rate_limit)
{
	char *copy = pstrdup(rate_limit);
	char *next_window;
	int64 longest = -1;

	for (char *window = strtok_r(copy, ",", &next_window); window != NULL;
		 window = strtok_r(NULL, ",", &next_window))
	{
		char *next_part;
		bool exhausted = false;
		int64 reset = -1;

		for (char *part = strtok_r(window, "; ", &next_part); part != NULL;
			 part = strtok_r(NULL, "; ", &next_part))
		{
			if (strcmp(part, "r=0") == 0)
				exhausted = true;
			else if (strncmp(part, "t=", 2) == 0)
				reset = seconds_to_ms(part + 2);
		}
		if (exhausted)
			longest = Max(longest, reset >= 0 ? reset : HTTP_RETRY_DEFAULT_MS);
	}
	pfree(copy);
	return longest;
}

/*
 * How long the provider wants no further call, in milliseconds; -1 if it does not
 * say so. The longest of what its headers ask for, a default where they cannot be
 * read or a 429 has none, between a second and an hour.
 */
int64
http_retry_wait_ms(int status, const char *retry_after, const char *rate_limit, TimestampTz date)
{
	int64 wait = exhausted_ms(rate_limit);

	if (retry_after[0] != '\0')
	{
		int64 asked = retry_after_ms(retry_after, date);

		wait = Max(wait, asked >= 0 ? asked : HTTP_RETRY_DEFAULT_MS);
	}
	if (wait < 0)
		return status == 429 ? HTTP_RETRY_DEFAULT_MS : -1;
	return Min(Max(wait, HTTP_RETRY_MIN_MS), HTTP_RETRY_MAX_MS);
}
