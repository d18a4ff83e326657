/*-------------------------------------------------------------------------
 *
 * worker_dead_man.c
 *		The dead man's switch of gpu-orch-worker: a pod whose worker has reached
 *		no database for long ends itself.
 *
 * The leader ends pods.  Where it is gone for good, with its database, nobody
 * does, and they bill on.  So a worker that the leader has put on a pod asks
 * the provider to delete that pod, with the key that the provider gave to the
 * pod for itself, and then ends.  Where the provider refuses, it ends all the
 * same and says that this does not stop the bill.  Must not end any other pod,
 * and never one that the leader did not make.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http/url.h"
#include "worker.h"

#define MAX_POD_ID 64
#define MAX_KEY 4096
#define CONNECT_LIMIT 10L /* seconds, of one request */
#define REQUEST_LIMIT 20L
#define TRIES 3
#define FIRST_PAUSE 2 /* seconds, doubled after each try */

/* What came of a request to delete the pod. */
typedef enum Verdict
{
	POD_ENDS,
	POD_STAYS, /* refused: asking again is of no use */
	POD_UNKNOWN
} Verdict;

/*
 * Is this worker on a pod that the leader made, and which it can name?
 */
static bool
on_own_pod(void)
{
	const char *id = worker.opt.pod_id;
	size_t length = id != NULL ? strlen(id) : 0;

	return worker.opt.installation != NULL && length > 0 && length <= MAX_POD_ID &&
		strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == length;
}

/*
 * Make ready, with the options read and before there is a second thread.
 * Returns NULL, or why the options cannot be used.
 */
const char *
dead_man_init(void)
{
	if (worker.opt.dead_man < 0)
		worker.opt.dead_man = on_own_pod() ? DEAD_MAN_DEFAULT : 0;
	if (worker.opt.dead_man == 0)
		return NULL;
	/* libcurl would write the sessions' keys there */
	unsetenv("SSLKEYLOGFILE");
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return "libcurl cannot be used";
	return http_url_problem(worker.opt.api_url, true);
}

/*
 * Seconds until the switch is due, 0 or less when it is; an hour when there is
 * none.
 */
double
dead_man_due(void)
{
	double heard;

	if (worker.opt.dead_man == 0)
		return 3600;
	pthread_mutex_lock(&worker.lock);
	heard = worker.heard;
	pthread_mutex_unlock(&worker.lock);
	return heard + worker.opt.dead_man - clock_now();
}

/*
 * Take a piece of an answer's body, of which nothing is wanted.
 */
static size_t
drop_body(char *data, size_t size, size_t n, void *unused)
{
	(void) data;
	(void) unused;
	return size * n;
}

/*
 * Set what a request to delete the pod needs; false if libcurl refuses any of it.
 */
static bool
prepare(CURL *easy, const char *url, struct curl_slist *headers, char *error)
{
	return curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_USERAGENT, PROGRAM_NAME "/" GPU_ORCH_VERSION) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop_body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_LIMIT) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TIMEOUT, REQUEST_LIMIT) == CURLE_OK;
}

/*
 * What a status proves.  A pod that is not there ends, or has ended.
 */
static Verdict
judge(long status)
{
	if ((status >= 200 && status <= 299) || status == 404)
		return POD_ENDS;
	if (status >= 400 && status <= 499 && status != 408 && status != 429)
		return POD_STAYS;
	return POD_UNKNOWN;
}

/*
 * Ask once for the pod's end, and log what came of it.
 */
static Verdict
ask_for_end(const char *key)
{
	CURL *easy = curl_easy_init();
	struct curl_slist *headers = NULL;
	char error[CURL_ERROR_SIZE] = "";
	char *line = format_text("Authorization: Bearer %s", key);
	char *url = format_text("%s%spods/%s", worker.opt.api_url,
							worker.opt.api_url[strlen(worker.opt.api_url) - 1] == '/' ? "" : "/",
							worker.opt.pod_id);
	CURLcode code = CURLE_OUT_OF_MEMORY;
	long status = 0;
	Verdict verdict;

	headers = curl_slist_append(NULL, line);
	if (easy != NULL && headers != NULL && prepare(easy, url, headers, error))
		code = curl_easy_perform(easy);
	if (code == CURLE_OK)
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	verdict = judge(status);
	if (verdict == POD_ENDS)
		log_line("the provider ends pod \"%s\" (HTTP %ld)", worker.opt.pod_id, status);
	else if (code == CURLE_OK)
		log_line("the provider does not end pod \"%s\": HTTP %ld", worker.opt.pod_id, status);
	else
		log_line("the provider cannot be asked to end pod \"%s\": %s", worker.opt.pod_id,
				 error[0] != '\0' ? error : curl_easy_strerror(code));
	if (easy != NULL)
		curl_easy_cleanup(easy);
	if (headers != NULL)
		explicit_bzero(headers->data, strlen(headers->data));
	curl_slist_free_all(headers);
	explicit_bzero(line, strlen(line));
	free(line);
	free(url);
	return verdict;
}

/*
 * The switch is due: have the pod deleted, if this is one of the leader's pods.
 * False if the database was heard of meanwhile: then the worker goes on.
 * Otherwise it must end, whatever came of it.  Takes a minute at most.
 */
bool
dead_man_end_pod(void)
{
	const char *key = getenv("RUNPOD_API_KEY");
	Verdict verdict = POD_UNKNOWN;
	int i;

	log_line("no heartbeat has reached the database for %.15g s", worker.opt.dead_man);
	if (!on_own_pod())
		return true;
	if (key == NULL || *key == '\0' || strlen(key) > MAX_KEY)
	{
		log_line("there is no RUNPOD_API_KEY to end the pod with");
		verdict = POD_STAYS;
	}
	for (i = 0; i < TRIES && verdict == POD_UNKNOWN; i++)
	{
		if (i > 0)
			nanosleep(&(struct timespec){ .tv_sec = FIRST_PAUSE << (i - 1) }, NULL);
		if (dead_man_due() > 0)
			return false;
		verdict = ask_for_end(key);
	}
	if (verdict != POD_ENDS)
		log_line("this worker ends, which does not stop the bill of pod \"%s\"", worker.opt.pod_id);
	return true;
}
