/*
 * http/retry.h
 *	  What an answer proves, and how long to wait. Pure.
 */
#ifndef GPU_ORCH_HTTP_RETRY_H
#define GPU_ORCH_HTTP_RETRY_H

#include "http/client.h"

/* What a wait is when the provider asks for one in words that we cannot read, and at most. */
#define HTTP_RETRY_DEFAULT_MS INT64CONST(30000)
#define HTTP_RETRY_MIN_MS INT64CONST(1000)
#define HTTP_RETRY_MAX_MS INT64CONST(3600000)

/* What a call does at the other side. */
typedef enum HttpEffect
{
	HTTP_MAKES,
	HTTP_READS,
	HTTP_REMOVES
} HttpEffect;

typedef enum HttpOutcome
{
	HTTP_DONE,	  /* the effect is proved */
	HTTP_REFUSED, /* it is proved that there was none */
	HTTP_UNKNOWN, /* there may have been one */
	HTTP_NOT_SENT /* nothing left this machine */
} HttpOutcome;

typedef enum HttpReason
{
	HTTP_REASON_NONE,
	HTTP_REASON_INVALID,
	HTTP_REASON_AUTH,
	HTTP_REASON_BALANCE,
	HTTP_REASON_FORBIDDEN,
	HTTP_REASON_NOT_FOUND,
	HTTP_REASON_CONFLICT,
	HTTP_REASON_RATE,
	HTTP_REASON_SERVER,
	HTTP_REASON_NETWORK,
	HTTP_REASON_UNREADABLE
} HttpReason;

typedef struct HttpVerdict
{
	HttpOutcome outcome;
	HttpReason reason;
} HttpVerdict;

extern HttpVerdict http_retry_judge(HttpEffect effect, HttpPhase phase, int status, bool readable);
extern int64 http_retry_wait_ms(int status, const char *retry_after, const char *rate_limit,
								TimestampTz date);

#endif
