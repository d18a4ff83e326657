/*
 * sweep_http.c
 *	  One request after another to the provider, by libcurl, and the waits between them.
 *
 * https alone, but for this machine; certificates are always verified; no redirect, proxy, cookie or
 * netrc. A request is sent once: whoever wants it again asks again, and is held back by what the
 * provider asked for (Retry-After), and by failures in a row. The time allowed for the whole run ends
 * the waits. Must know nothing of pods, and print nothing: the key passes through here.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decide/backoff.h"
#include "sweep.h"

#define USER_AGENT PROGRAM_NAME "/" GPU_ORCH_VERSION
#define MAX_BODY_BYTES (8 * 1024 * 1024)
#define MAX_HEADER_BYTES (64 * 1024)
#define CONNECT_TIMEOUT_S 10L
#define TIMEOUT_S 30L
#define BACKOFF_FIRST_MS 1000
#define BACKOFF_CAP_MS 30000
/* No provider's wish to be left alone is taken for longer. */
#define MAX_RETRY_AFTER_S 3600

static struct
{
	CURL *easy;
	struct curl_slist *headers;
	char *api_url;
	char *body;
	size_t body_len;
	size_t header_bytes;
	double not_before; /* on our clock: the next request may go out */
	double deadline;
	int failures; /* in a row */
	char error[CURL_ERROR_SIZE];
} http;

/* Seconds on a clock that never jumps. */
static double
clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* A piece of a body. Whatever is not its length ends the transfer. */
static size_t
take_body(char *data, size_t size, size_t n, void *unused)
{
	size_t len = size * n;

	(void) unused;
	if (len > MAX_BODY_BYTES - http.body_len)
		return 0;
	http.body = xrealloc(http.body, http.body_len + len + 1);
	memcpy(http.body + http.body_len, data, len);
	http.body_len += len;
	return len;
}

/* A line of the headers: only counted. */
static size_t
take_header(char *line, size_t size, size_t n, void *unused)
{
	(void) line;
	(void) unused;
	http.header_bytes += size * n;
	return http.header_bytes > MAX_HEADER_BYTES ? 0 : size * n;
}

#define SET(option, value) (curl_easy_setopt(http.easy, (option), (value)) == CURLE_OK)

/* Tell libcurl what holds for every request; false if it refuses any of it. */
static bool
set_options(void)
{
	bool tls = strncasecmp(http.api_url, "https:", 6) == 0;

	return SET(CURLOPT_HTTPHEADER, http.headers) && SET(CURLOPT_USERAGENT, USER_AGENT) &&
		SET(CURLOPT_ERRORBUFFER, http.error) && SET(CURLOPT_WRITEFUNCTION, take_body) &&
		SET(CURLOPT_HEADERFUNCTION, take_header) &&
		SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) MAX_BODY_BYTES) &&
		SET(CURLOPT_HTTP_CONTENT_DECODING, 0L) &&
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) &&
		SET(CURLOPT_FOLLOWLOCATION, 0L) && SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED) &&
		SET(CURLOPT_PROXY, "") && SET(CURLOPT_NOPROXY, "*") && SET(CURLOPT_SSL_VERIFYPEER, 1L) &&
		SET(CURLOPT_SSL_VERIFYHOST, 2L) &&
		SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) &&
#if LIBCURL_VERSION_NUM >= 0x075500
		SET(CURLOPT_PROTOCOLS_STR, tls ? "https" : "http") &&
#else
		SET(CURLOPT_PROTOCOLS, (long) (tls ? CURLPROTO_HTTPS : CURLPROTO_HTTP)) &&
#endif
		SET(CURLOPT_NOSIGNAL, 1L) && SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S) &&
		SET(CURLOPT_TIMEOUT, TIMEOUT_S);
}

/* Add a header line; false without memory. */
static bool
add_header(const char *line)
{
	struct curl_slist *longer = curl_slist_append(http.headers, line);

	if (longer != NULL)
		http.headers = longer;
	return longer != NULL;
}

/* Make ready for requests; the time allowed begins now. False if libcurl cannot be used. */
bool
http_start(const char *api_url, const char *key, int wait_seconds)
{
	char line[sizeof("Authorization: Bearer ") + MAX_KEY_BYTES];
	bool ok;

	/* libcurl would write the sessions' keys there. */
	unsetenv("SSLKEYLOGFILE");
	http.deadline = clock_now() + wait_seconds;
	http.api_url = strdup(api_url);
	http.easy = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
	if (http.easy == NULL || http.api_url == NULL)
		return false;
	for (size_t len = strlen(http.api_url); len > 0 && http.api_url[len - 1] == '/'; len--)
		http.api_url[len - 1] = '\0';
	snprintf(line, sizeof(line), "Authorization: Bearer %s", key);
	ok = add_header("Accept: application/json") && add_header(line) && set_options();
	explicit_bzero(line, sizeof(line));
	return ok;
}

/* Give everything back, and forget the key. */
void
http_stop(void)
{
	for (struct curl_slist *line = http.headers; line != NULL; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_easy_cleanup(http.easy);
	curl_slist_free_all(http.headers);
	curl_global_cleanup();
	free(http.api_url);
	free(http.body);
}

/* Let the next request wait at least so long. */
void
http_pause(double seconds)
{
	if (http.not_before < clock_now() + seconds)
		http.not_before = clock_now() + seconds;
}

/* How long the next request has to wait. */
double
http_pause_left(void)
{
	double left = http.not_before - clock_now();

	return left > 0 ? left : 0;
}

/* The last answer was a failure: the next request waits, longer for each in a row. */
void
http_failed(void)
{
	http.failures++;
	http_pause(backoff_ms(http.failures, BACKOFF_FIRST_MS, BACKOFF_CAP_MS, (uint64_t) getpid()) /
			   1e3);
}

/* A path with a text at the end of its query, escaped; malloc'd. */
char *
http_query(const char *path, const char *text)
{
	char *escaped = curl_easy_escape(http.easy, text, 0);
	char *whole;

	if (escaped == NULL)
		out_of_memory();
	whole = format_text("%s%s", path, escaped);
	curl_free(escaped);
	return whole;
}

/* Wait until a request may go out; false, at once, if that is after the time allowed. */
static bool
wait_for_turn(void)
{
	double left = http_pause_left();
	struct timespec nap;

	if (clock_now() + left > http.deadline)
		return false;
	while ((left = http_pause_left()) > 0)
	{
		nap.tv_sec = (time_t) left;
		nap.tv_nsec = (long) ((left - nap.tv_sec) * 1e9);
		nanosleep(&nap, NULL);
	}
	return true;
}

/* Judge how a transfer ended: fill in the answer, and keep the next request waiting if it should. */
static void
take_answer(CURLcode code, HttpAnswer *answer)
{
	curl_off_t retry_after = 0;
	long status = 0;

	memset(answer, 0, sizeof(*answer));
	if (code == CURLE_OK)
		curl_easy_getinfo(http.easy, CURLINFO_RESPONSE_CODE, &status);
	answer->error = http.error[0] != '\0' ? http.error : curl_easy_strerror(code);
	answer->status = (int) status;
	answer->body = http.body;
	answer->body_len = http.body_len;
	if ((status >= 200 && status <= 299) || status == 404)
		http.failures = 0;
	else
		http_failed();
	curl_easy_getinfo(http.easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		http_pause(retry_after < MAX_RETRY_AFTER_S ? (double) retry_after : MAX_RETRY_AFTER_S);
}

/*
 * Send one request when it may go out, and wait for its answer. False if the time allowed is over:
 * then nothing was sent.
 */
bool
http_request(const char *method, const char *path, HttpAnswer *answer)
{
	char *url;
	CURLcode code;

	if (!wait_for_turn())
		return false;
	url = format_text("%s%s", http.api_url, path);
	http.body_len = http.header_bytes = 0;
	http.error[0] = '\0';
	if (SET(CURLOPT_URL, url) && SET(CURLOPT_CUSTOMREQUEST, method))
		code = curl_easy_perform(http.easy);
	else
		code = CURLE_OUT_OF_MEMORY;
	take_answer(code, answer);
	free(url);
	return true;
}
