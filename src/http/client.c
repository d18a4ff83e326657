/*
 * http/client.c
 *	  One HTTP request: how it is sent, how it ended.
 *
 * Each request is sent once. A POST gets an HTTP/1.1 connection of its own, because
 * libcurl by itself sends a request again when a connection that it reused closes
 * before the answer, or when an HTTP/2 server refuses the stream or goes away, and a
 * POST twice makes two pods. What may be sent twice shares connections, by HTTP/2 where
 * the server speaks it over TLS; after a request that ended without an answer, none that
 * is older is used again, as it may be dead without anybody having been told. Redirects,
 * proxies, cookies and netrc are off; TLS is always verified; plain http is for
 * loopback only.
 *
 * Everything that lives while a request is under way is on malloc, since libcurl's
 * callbacks can neither raise nor palloc. Results are copied to the caller's context
 * when they are taken. Must not know any provider, and never runs in a transaction.
 */
#include "postgres.h"

#include <strings.h>

#include "access/xact.h"
#include "http/client.h"
#include "http/mux.h"
#include "http/url.h"
#include "lib/ilist.h"
#include "utils/timestamp.h"

/* Set by the build; what a build by hand says of itself. */
#ifndef GPU_ORCH_VERSION
#define GPU_ORCH_VERSION "unreleased"
#endif

#define USER_AGENT "gpu_orch/" GPU_ORCH_VERSION " (PostgreSQL)"
#define MAX_KEY_BYTES 4096
#define MAX_HEADER_BYTES (64 * 1024)
#define MAX_IDLE_HANDLES 8
/* Connections are not reused after so many idle seconds, nor after such an age. */
#define IDLE_CONNECTION_S 60L
#define OLD_CONNECTION_S 300L

/* One request under way, or ended and not yet taken. */
typedef struct HttpCall
{
	dlist_node node;
	HttpRequest request; /* its url and body are our copies, its bearer is gone */
	CURL *easy;			 /* NULL once it ended */
	struct curl_slist *headers;
	char *url;
	char *request_body;
	bool reached; /* connected, and about to send */

	char *body;
	size_t body_len;
	size_t body_size;
	size_t header_bytes;
	char content_type[128];
	char retry_after[64];
	char rate_limit[512];
	char date[64];
	const char *detail; /* our own reason for ending it; static */
	char curl_error[CURL_ERROR_SIZE];

	/* once it ended */
	CURLcode code;
	HttpPhase phase;
	int status;
} HttpCall;

struct HttpClient
{
	HttpMux *mux;
	dlist_head active;
	dlist_head ended;
	CURL *idle[MAX_IDLE_HANDLES];
	int n_idle;
	bool doubt;		  /* the request that ended last had no whole answer */
	int64 trusted_ms; /* by http_mux_clock_ms(): older connections are not reused; 0: all are */
};

static const char *const method_names[] = {
	[HTTP_GET] = "GET",
	[HTTP_POST] = "POST",
	[HTTP_DELETE] = "DELETE",
};

/* What the administrator should know about this libcurl; NULL if all is well. */
const char *
http_client_warning(void)
{
	return http_mux_warning();
}

/* A text as it stands in the query of a URL, palloc'd; NULL if libcurl has no memory. */
char *
http_client_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *result = NULL;

	if (escaped != NULL)
		result = pstrdup(escaped);
	curl_free(escaped);
	return result;
}

/* libcurl is connected and will now send. */
#if LIBCURL_VERSION_NUM >= 0x075000
static int
note_sending(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	((HttpCall *) arg)->reached = true;
	return CURL_PREREQFUNC_OK;
}
#endif

/* A piece of the body. Whatever is not its length ends the transfer. */
static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	HttpCall *call = arg;
	size_t len = size * n;

	if (len > call->request.max_answer - call->body_len)
	{
		call->detail = "the answer is longer than allowed";
		return 0;
	}
	if (call->body_len + len + 1 > call->body_size)
	{
		size_t want = Max(2 * call->body_size, call->body_len + len + 1);
		char *grown = realloc(call->body, want);

		if (grown == NULL)
		{
			call->detail = "out of memory";
			return 0;
		}
		call->body = grown;
		call->body_size = want;
	}
	memcpy(call->body + call->body_len, data, len);
	call->body_len += len;
	return len;
}

/*
 * If this line is the header of that name (with its colon), keep its value: printable
 * ASCII only, cut where the room ends, joined by commas if the header is repeated.
 */
static void
keep_header(const char *line, size_t len, const char *name, char *value, size_t room)
{
	size_t used = strlen(value);
	size_t i = strlen(name);

	if (len < i || strncasecmp(line, name, i) != 0)
		return;
	while (i < len && line[i] == ' ')
		i++;
	while (len > i && (unsigned char) line[len - 1] <= ' ')
		len--;
	if (used > 0 && used + 1 < room)
		value[used++] = ',';
	for (; i < len && used + 1 < room; i++)
		value[used++] = line[i] >= ' ' && line[i] <= '~' ? line[i] : '?';
	value[used] = '\0';
}

/* A line of the headers; also those of 1xx answers, which the next status line voids. */
static size_t
take_header(char *line, size_t size, size_t n, void *arg)
{
	HttpCall *call = arg;
	size_t len = size * n;

	call->header_bytes += len;
	if (call->header_bytes > MAX_HEADER_BYTES)
	{
		call->detail = "the answer's headers are longer than allowed";
		return 0;
	}
	if (len >= 5 && strncmp(line, "HTTP/", 5) == 0)
	{
		call->content_type[0] = call->retry_after[0] = '\0';
		call->rate_limit[0] = call->date[0] = '\0';
	}
	keep_header(line, len, "Content-Type:", call->content_type, sizeof(call->content_type));
	keep_header(line, len, "Retry-After:", call->retry_after, sizeof(call->retry_after));
	keep_header(line, len, "RateLimit:", call->rate_limit, sizeof(call->rate_limit));
	keep_header(line, len, "Date:", call->date, sizeof(call->date));
	return len;
}

#define SET(option, value) \
	do \
	{ \
		if (curl_easy_setopt(call->easy, (option), (value)) != CURLE_OK) \
			return #option; \
	} while (0)

/*
 * How a request gets its connection. A POST: HTTP/1.1, new, and used by nothing else.
 * Others share, except with connections of before a request that went unanswered: libcurl
 * keeps those of HTTP/2, and one that is dead would make everything on it wait for its
 * time limit. A libcurl that cannot leave connections by their age speaks HTTP/1.1 alone.
 */
static const char *
set_connection(const HttpClient *client, HttpCall *call)
{
	bool own = call->request.method == HTTP_POST;
#if LIBCURL_VERSION_NUM >= 0x075000
	int64 age_s = OLD_CONNECTION_S;

	if (client->trusted_ms != 0)
		age_s = Min(Max((http_mux_clock_ms() - client->trusted_ms) / 1000, 1), OLD_CONNECTION_S);
	SET(CURLOPT_MAXLIFETIME_CONN, (long) age_s);
	SET(CURLOPT_HTTP_VERSION, (long) (own ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS));
#else
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
#endif
	SET(CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_S);
	SET(CURLOPT_FRESH_CONNECT, own || client->doubt ? 1L : 0L);
	SET(CURLOPT_FORBID_REUSE, own ? 1L : 0L);
	return NULL;
}

/* Tell libcurl all about a request. NULL, or the option that it refuses. */
static const char *
client_set_options(const HttpClient *client, HttpCall *call)
{
	const HttpRequest *request = &call->request;
	bool tls = strncasecmp(call->url, "https:", 6) == 0;

	SET(CURLOPT_URL, call->url);
	SET(CURLOPT_PRIVATE, call);
	SET(CURLOPT_ERRORBUFFER, call->curl_error);
	SET(CURLOPT_HTTPHEADER, call->headers);
	SET(CURLOPT_USERAGENT, USER_AGENT);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, call);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, call);
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) request->max_answer);
	SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);

	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	if (request->ca_file != NULL)
		SET(CURLOPT_CAINFO, request->ca_file);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, tls ? "https" : "http");
#else
	SET(CURLOPT_PROTOCOLS, (long) (tls ? CURLPROTO_HTTPS : CURLPROTO_HTTP));
#endif

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, (long) request->stall_timeout_s);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
#if LIBCURL_VERSION_NUM >= 0x075000
	SET(CURLOPT_PREREQFUNCTION, note_sending);
	SET(CURLOPT_PREREQDATA, call);
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Do not wait for a name server when a transfer is given up. */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif

	if (request->method == HTTP_DELETE)
		SET(CURLOPT_CUSTOMREQUEST, method_names[HTTP_DELETE]);
	if (request->method == HTTP_POST)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDS, call->request_body);
		SET(CURLOPT_POSTFIELDSIZE, (long) strlen(call->request_body));
	}
	return set_connection(client, call);
}

/* Append a header line. False without memory. */
static bool
add_header(HttpCall *call, const char *line)
{
	struct curl_slist *longer = curl_slist_append(call->headers, line);

	if (longer != NULL)
		call->headers = longer;
	return longer != NULL;
}

/* The header lines of a request, with the key in one of them. False without memory. */
static bool
set_headers(HttpCall *call, const char *bearer)
{
	char line[sizeof("Authorization: Bearer ") + MAX_KEY_BYTES];
	bool ok = add_header(call, "Accept: application/json");

	if (bearer != NULL)
	{
		snprintf(line, sizeof(line), "Authorization: Bearer %s", bearer);
		ok = ok && add_header(call, line);
		explicit_bzero(line, sizeof(line));
	}
	if (call->request.method == HTTP_POST)
		ok =
			ok && add_header(call, "Content-Type: application/json") && add_header(call, "Expect:");
	return ok;
}

/* Give back what a request holds of libcurl, and forget what is secret. */
static void
release_transport(HttpClient *client, HttpCall *call)
{
	for (struct curl_slist *line = call->headers; line != NULL; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	if (call->request_body != NULL)
		explicit_bzero(call->request_body, strlen(call->request_body));
	if (call->easy != NULL)
	{
		curl_easy_reset(call->easy);
		if (client->n_idle < MAX_IDLE_HANDLES)
			client->idle[client->n_idle++] = call->easy;
		else
			curl_easy_cleanup(call->easy);
		call->easy = NULL;
	}
	curl_slist_free_all(call->headers);
	call->headers = NULL;
	free(call->request_body);
	call->request_body = NULL;
}

/* The one destructor of a request; it is in no list and in no mux any more. */
static void
free_call(HttpClient *client, HttpCall *call)
{
	release_transport(client, call);
	if (call->body != NULL)
		explicit_bzero(call->body, call->body_size);
	free(call->body);
	free(call->url);
	free(call);
}

/*
 * Is it proved that nothing of a failed request was sent? A libcurl that does not
 * say when it begins to send proves it only by failing to connect.
 */
static bool
nothing_was_sent(const HttpCall *call, CURLcode code)
{
	long bytes;

	if (curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &bytes) != CURLE_OK || bytes != 0)
		return false;
#if LIBCURL_VERSION_NUM >= 0x075000
	return !call->reached;
#else
	return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT ||
		code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
		code == CURLE_SSL_CACERT_BADFILE;
#endif
}

/* A request ended: take down how, and let libcurl go. */
static void
end_call(HttpClient *client, HttpCall *call, CURLcode code)
{
	long status = 0;

	(void) curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	call->code = code;
	call->status = (int) status;
	if (code == CURLE_OK)
		call->phase = HTTP_COMPLETE;
	else
		call->phase = nothing_was_sent(call, code) ? HTTP_NOTHING_SENT : HTTP_SENT;
	if (call->request.method != HTTP_POST)
	{
		client->doubt = code != CURLE_OK;
		if (client->doubt)
			client->trusted_ms = http_mux_clock_ms();
	}
	http_mux_remove(client->mux, call->easy);
	release_transport(client, call);
	dlist_delete(&call->node);
	dlist_push_tail(&client->ended, &call->node);
}

/*
 * Make a client; it lives on malloc until http_client_destroy(). NULL with a reason
 * palloc'd in *error where libcurl cannot be started.
 */
HttpClient *
http_client_create(char **error)
{
	HttpMux *mux;
	HttpClient *client;

	Assert(!IsTransactionState());
	mux = http_mux_create(error);
	if (mux == NULL)
		return NULL;
	client = calloc(1, sizeof(HttpClient));
	if (client == NULL)
	{
		http_mux_destroy(mux);
		*error = pstrdup("out of memory");
		return NULL;
	}
	client->mux = mux;
	dlist_init(&client->active);
	dlist_init(&client->ended);
	return client;
}

/* Free it; what is under way is given up, what ended is lost. */
void
http_client_destroy(HttpClient *client)
{
	Assert(!IsTransactionState());
	while (!dlist_is_empty(&client->active))
	{
		HttpCall *call = dlist_container(HttpCall, node, dlist_pop_head_node(&client->active));

		http_mux_remove(client->mux, call->easy);
		free_call(client, call);
	}
	while (!dlist_is_empty(&client->ended))
		free_call(client, dlist_container(HttpCall, node, dlist_pop_head_node(&client->ended)));
	for (int i = 0; i < client->n_idle; i++)
		curl_easy_cleanup(client->idle[i]);
	http_mux_destroy(client->mux);
	free(client);
}

/* Readable when http_client_drive() has something to do. */
int
http_client_fd(const HttpClient *client)
{
	return http_mux_fd(client->mux);
}

/* Milliseconds until http_client_drive() is due although nothing arrived; -1: no limit. */
long
http_client_timeout_ms(const HttpClient *client)
{
	return http_mux_timeout_ms(client->mux);
}

/* Move everything on without waiting; what ended is then there for http_client_next(). */
void
http_client_drive(HttpClient *client)
{
	const char *failure = http_mux_drive(client->mux);
	CURL *easy;
	CURLcode code;

	while ((easy = http_mux_next_done(client->mux, &code)) != NULL)
	{
		HttpCall *call = NULL;

		(void) curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &call);
		end_call(client, call, code);
	}
	while (failure != NULL && !dlist_is_empty(&client->active))
	{
		HttpCall *call = dlist_head_element(HttpCall, node, &client->active);

		call->detail = failure;
		end_call(client, call, CURLE_ABORTED_BY_CALLBACK);
	}
}

/* Why this key cannot stand in a header; NULL if it can. */
static const char *
key_problem(const char *key)
{
	size_t len = strlen(key);

	if (len == 0)
		return "the key is empty";
	if (len > MAX_KEY_BYTES)
		return "the key is too long";
	for (size_t i = 0; i < len; i++)
	{
		if (key[i] <= ' ' || key[i] > '~')
			return "the key holds characters that a key cannot hold";
	}
	return NULL;
}

/* An easy handle, used before or new; NULL without memory. */
static CURL *
get_handle(HttpClient *client)
{
	return client->n_idle > 0 ? client->idle[--client->n_idle] : curl_easy_init();
}

/*
 * Begin a request. Its end is reported by http_client_next(), always. False, with a
 * reason palloc'd in *error, if it is refused here: then nothing was or will be sent.
 */
bool
http_client_start(HttpClient *client, const HttpRequest *request, char **error)
{
	HttpCall *call;
	const char *problem = http_url_problem(request->url, false);

	Assert(!IsTransactionState());
	Assert((request->method == HTTP_POST) == (request->body != NULL));
	*error = NULL;
	if (problem == NULL && request->bearer != NULL)
		problem = key_problem(request->bearer);
	if (problem != NULL)
	{
		*error = pstrdup(problem);
		return false;
	}

	call = calloc(1, sizeof(HttpCall));
	if (call == NULL)
	{
		*error = pstrdup("out of memory");
		return false;
	}
	call->request = *request;
	call->url = strdup(request->url);
	call->request_body = request->body != NULL ? strdup(request->body) : NULL;
	call->request.url = call->request.body = call->request.bearer = NULL;
	call->easy = get_handle(client);
	if (call->easy == NULL || call->url == NULL ||
		(request->body != NULL && call->request_body == NULL) ||
		!set_headers(call, request->bearer))
		problem = "out of memory";
	else
		problem = client_set_options(client, call);
	call->request.ca_file = NULL;
	if (problem == NULL)
		problem = http_mux_add(client->mux, call->easy);
	if (problem != NULL)
	{
		free_call(client, call);
		*error = psprintf("libcurl cannot begin the request: %s", problem);
		return false;
	}
	dlist_push_tail(&client->active, &call->node);
	return true;
}

/* What was done, our reason, and libcurl's; palloc'd. */
static char *
describe_failure(const HttpCall *call)
{
	const char *curl_error =
		call->curl_error[0] != '\0' ? call->curl_error : curl_easy_strerror(call->code);
	const char *detail = call->detail;

	if (detail == NULL)
		detail =
			call->phase == HTTP_NOTHING_SENT ? "nothing was sent" : "no complete answer arrived";
	return psprintf("%s %s: %s: %s", method_names[call->request.method], call->url, detail,
					curl_error);
}

/*
 * Take a request that ended, in the order in which they did. False if there is none.
 * The texts are palloc'd in the caller's context.
 */
bool
http_client_next(HttpClient *client, HttpResult *result)
{
	HttpCall *call;
	time_t date;

	Assert(!IsTransactionState());
	if (dlist_is_empty(&client->ended))
		return false;
	call = dlist_head_element(HttpCall, node, &client->ended);
	memset(result, 0, sizeof(*result));
	result->user = call->request.user;
	result->phase = call->phase;
	result->status = call->status;
	result->body_len = call->phase == HTTP_COMPLETE ? call->body_len : 0;
	result->body = palloc(result->body_len + 1);
	if (result->body_len > 0)
		memcpy(result->body, call->body, result->body_len);
	result->body[result->body_len] = '\0';
	result->content_type = pstrdup(call->content_type);
	result->retry_after = pstrdup(call->retry_after);
	result->rate_limit = pstrdup(call->rate_limit);
	date = call->date[0] != '\0' ? curl_getdate(call->date, NULL) : -1;
	result->date = date > 0 ? time_t_to_timestamptz((pg_time_t) date) : 0;
	if (call->phase != HTTP_COMPLETE)
		result->error = describe_failure(call);
	dlist_delete(&call->node);
	free_call(client, call);
	return true;
}
