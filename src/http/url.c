/*
 * http/url.c
 *	  Which URLs the provider may be called at.
 *
 * Pure: the extension, gpu-orch-sweep and gpu-orch-worker share it, so that none of
 * them sends the provider's key where another one would not.
 */
#include "http/url.h"

#include <curl/curl.h>
#include <string.h>

static bool
is_loopback(const char *host)
{
	return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "[::1]") == 0 ||
		strcmp(host, "localhost") == 0;
}

/*
 * Why requests to this URL are refused, a constant; NULL if they are allowed: https,
 * or http to this machine, without a user in it. is_base: paths are appended to it, so
 * it may have no query or fragment either.
 */
const char *
http_url_problem(const char *url, bool is_base)
{
	CURLU *parts = curl_url();
	char *scheme = NULL;
	char *host = NULL;
	char *user = NULL;
	char *password = NULL;
	const char *problem = NULL;

	if (parts == NULL)
		return "out of memory";
	if (curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
		curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		problem = "it is not a URL";
	else if (curl_url_get(parts, CURLUPART_USER, &user, 0) != CURLUE_NO_USER ||
			 curl_url_get(parts, CURLUPART_PASSWORD, &password, 0) != CURLUE_NO_PASSWORD)
		problem = "it holds a user";
	else if (is_base && strpbrk(url, "?#") != NULL)
		problem = "it has a query or a fragment";
	else if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)
		problem = "its scheme is not https";
	else if (strcmp(scheme, "http") == 0 && !is_loopback(host))
		problem = "plain http is for 127.0.0.1, [::1] and localhost only";
	curl_free(scheme);
	curl_free(host);
	curl_free(user);
	curl_free(password);
	curl_url_cleanup(parts);
	return problem;
}
