/*
 * sim_http.c
 *	  The wire: receives requests, holds them back, sends answers, or breaks off as a fault wants.
 *
 * One thread of libmicrohttpd serves all connections, so a request that has to wait is suspended
 * and listed in sim.held; the clock thread resumes it when it is due. Knows no path and no pod.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "sim.h"

#define MAX_CONNECTIONS 4000
#define IDLE_SECONDS 300
/* Times that differ by less are the same. */
#define CLOCK_GRAIN 1e-6

/* ---- holding back ---- */

/*
 * Hold a request back for some seconds of the provider's clock. False while the listener is being
 * closed: then it is not held.
 */
static bool
hold(SimRequest *request, double seconds)
{
	if (sim.stopping || sim.deaf)
		return false;
	request->due = sim_now() + seconds;
	MHD_suspend_connection(request->connection);
	TAILQ_INSERT_TAIL(&sim.held, request, link);
	return true;
}

/* Let the requests go on that are due, or all of them. */
void
sim_http_release(bool all)
{
	double now = sim_now() + CLOCK_GRAIN;
	SimRequest *request;
	SimRequest *next;

	for (request = TAILQ_FIRST(&sim.held); request != NULL; request = next)
	{
		next = TAILQ_NEXT(request, link);
		if (!all && now < request->due)
			continue;
		TAILQ_REMOVE(&sim.held, request, link);
		MHD_resume_connection(request->connection);
	}
}

/* ---- sending ---- */

/*
 * Give the next part of a body that travels slowly: some bytes, then a pause. A stall gives
 * nothing, and breaks off when its time is over. Takes the lock.
 */
static ssize_t
read_slowly(void *arg, uint64_t pos, char *buffer, size_t max)
{
	SimRequest *request = arg;
	size_t len = request->payload_len - (size_t) pos;
	double wait;
	double now;
	bool is_held;

	pthread_mutex_lock(&sim.lock);
	now = sim_now();
	wait = request->due - now;
	is_held = wait > CLOCK_GRAIN && hold(request, wait);
	pthread_mutex_unlock(&sim.lock);
	if (wait > CLOCK_GRAIN)
		return is_held ? 0 : MHD_CONTENT_READER_END_WITH_ERROR;
	if (request->wire_bytes == 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	len = len > request->wire_bytes ? request->wire_bytes : len;
	len = len > max ? max : len;
	memcpy(buffer, request->payload + pos, len);
	request->due = now + request->wire_seconds;
	return (ssize_t) len;
}

/* Add a header if it has a value. */
static void
add_header(struct MHD_Response *response, const char *name, const char *value)
{
	if (value != NULL && value[0] != '\0')
		MHD_add_response_header(response, name, value);
}

/* Add the date of the provider's clock. */
static void
add_date(struct MHD_Response *response, double now)
{
	time_t seconds = (time_t) now;
	struct tm parts;
	char text[40];

	gmtime_r(&seconds, &parts);
	strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
	MHD_add_response_header(response, MHD_HTTP_HEADER_DATE, text);
}

/* End a connection without an answer: in order, or by a reset. */
static enum MHD_Result
break_off(SimRequest *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	if (strncmp(request->wire->name, "reset", 5) == 0)
		setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return MHD_NO;
}

/* Has the client closed its end of the connection? */
static bool
is_deserted(const SimRequest *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char byte;

	return recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Send the answer of a request. */
static enum MHD_Result
send_answer(SimRequest *request, double now)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (request->status == 0)
		return break_off(request);
	request->unheard = is_deserted(request);
	if (request->wire != NULL && request->wire_seconds > 0)
	{
		request->due = request->wire_bytes > 0 ? 0 : now + request->wire_seconds;
		response = MHD_create_response_from_callback(request->payload_len, 4096, read_slowly,
													 request, NULL);
	}
	else
	{
		if (request->wire != NULL && request->wire_bytes < request->payload_len)
			request->payload_len = request->wire_bytes;
		response = MHD_create_response_from_buffer(request->payload_len, request->payload,
												   MHD_RESPMEM_PERSISTENT);
	}
	add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, request->content_type);
	add_header(response, MHD_HTTP_HEADER_ALLOW, request->allow);
	add_header(response, MHD_HTTP_HEADER_RETRY_AFTER, request->retry_after);
	add_header(response, "RateLimit", request->rate_limit);
	add_header(response, "RateLimit-Policy", request->rate_policy);
	add_header(response, "x-request-id", request->request_id);
	add_date(response, now);
	result = MHD_queue_response(request->connection, (unsigned) request->status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- receiving ---- */

/* A query parameter, or NULL. */
const char *
sim_query(const SimRequest *request, const char *key)
{
	if (request->connection == NULL)
		return NULL;
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, key);
}

/* Keep a part of a body; nothing of one that is too large. */
static void
receive(SimRequest *request, const char *data, size_t len)
{
	if (request->too_large || request->body_len + len > MAX_BODY_BYTES)
	{
		request->too_large = true;
		request->body_len = 0;
		return;
	}
	request->body = realloc(request->body, request->body_len + len);
	if (request->body == NULL)
		abort();
	memcpy(request->body + request->body_len, data, len);
	request->body_len += len;
}

/*
 * A request whose body is complete: serve it, in as many steps as it is held back. Called again by
 * libmicrohttpd after each. Takes the lock.
 */
static enum MHD_Result
serve(SimRequest *request)
{
	double seconds = 0;
	double now;

	pthread_mutex_lock(&sim.lock);
	if (request->stage == STAGE_BEGIN)
	{
		sim_begin(request);
		request->stage = request->status != 0 ? STAGE_SEND : STAGE_EXECUTE;
		seconds = request->status != 0 ? 0 : sim_fault_delay(request, false);
	}
	if (request->stage == STAGE_EXECUTE && seconds == 0)
	{
		seconds = sim_fault_delay(request, true);
		sim_execute(request);
		request->stage = STAGE_SEND;
	}
	if (seconds > 0 && hold(request, seconds))
	{
		pthread_mutex_unlock(&sim.lock);
		return MHD_YES;
	}
	now = sim_now();
	pthread_mutex_unlock(&sim.lock);
	return request->stage == STAGE_SEND ? send_answer(request, now) : MHD_NO;
}

/* libmicrohttpd's access handler: called at the headers, for each part of the body, at its end. */
static enum MHD_Result
handle(void *unused, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_len, void **state)
{
	const union MHD_ConnectionInfo *info;
	SimRequest *request = *state;
	long *served;

	(void) unused;
	(void) version;
	if (request == NULL)
	{
		request = sim_alloc(sizeof(SimRequest));
		info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
		served = info->socket_context;
		request->connection = connection;
		request->method = method;
		request->path = url;
		request->reused = (*served)++ > 0;
		*state = request;
		return MHD_YES;
	}
	if (*upload_len > 0)
	{
		receive(request, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	return serve(request);
}

/* libmicrohttpd is done with a request. Takes the lock. */
static void
completed(void *unused, struct MHD_Connection *connection, void **state,
		  enum MHD_RequestTerminationCode how)
{
	SimRequest *request = *state;

	(void) unused;
	(void) connection;
	if (request == NULL)
		return;
	pthread_mutex_lock(&sim.lock);
	sim_record_end(request, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	if (request->refuse > 0)
		sim.refuse_seconds = request->refuse;
	pthread_mutex_unlock(&sim.lock);
	json_decref(request->json);
	json_decref(request->answer);
	free(request->body);
	free(request->payload);
	free(request);
}

/* A connection begins or ends: it counts its requests. */
static void
connected(void *unused, struct MHD_Connection *connection, void **context,
		  enum MHD_ConnectionNotificationCode how)
{
	(void) unused;
	(void) connection;
	if (how == MHD_CONNECTION_NOTIFY_STARTED)
		*context = sim_alloc(sizeof(long));
	else
		free(*context);
}

/* ---- listening ---- */

/* Is it an address that only this machine can reach? */
static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
		IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
}

/*
 * Listen on ADDRESS:PORT, which must be of the loopback network; port 0 means any. Writes where it
 * listens to bound. NULL with a complaint on standard error if that fails.
 */
struct MHD_Daemon *
sim_http_start(const char *address, char *bound, size_t bound_size)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
							  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *port = strrchr(address, ':');
	struct addrinfo *found = NULL;
	struct MHD_Daemon *http = NULL;
	char host[64];
	int host_len = port != NULL ? (int) (port - address) : 0;

	if (host_len >= 2 && address[0] == '[' && address[host_len - 1] == ']')
		snprintf(host, sizeof(host), "%.*s", host_len - 2, address + 1);
	else
		snprintf(host, sizeof(host), "%.*s", host_len, address);
	if (port == NULL || getaddrinfo(host, port + 1, &hints, &found) != 0)
		fprintf(stderr, PROGRAM_NAME ": \"%s\" is not an address and port such as 127.0.0.1:8080\n",
				address);
	else if (!is_loopback(found->ai_addr))
		fprintf(stderr, PROGRAM_NAME ": %s is refused: only loopback addresses are listened on\n",
				address);
	else
	{
		struct MHD_OptionItem tls[] = {
			{ MHD_OPTION_HTTPS_MEM_KEY, 0, sim.tls_key },
			{ MHD_OPTION_HTTPS_MEM_CERT, 0, sim.tls_cert },
			{ MHD_OPTION_END, 0, NULL },
		};

		http = MHD_start_daemon(
			MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME |
				MHD_USE_SUPPRESS_DATE_NO_CLOCK | (sim.tls_cert != NULL ? MHD_USE_TLS : 0) |
				(found->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0),
			0, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, found->ai_addr,
			MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, connected,
			NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned) MAX_CONNECTIONS,
			MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) IDLE_SECONDS, MHD_OPTION_ARRAY,
			sim.tls_cert != NULL ? tls : &tls[2], MHD_OPTION_END);
		if (http == NULL)
			fprintf(stderr, PROGRAM_NAME ": cannot listen on %s\n", address);
		else
			snprintf(bound, bound_size, "%.*s:%d", host_len, address,
					 MHD_get_daemon_info(http, MHD_DAEMON_INFO_BIND_PORT)->port);
	}
	if (found != NULL)
		freeaddrinfo(found);
	return http;
}

/* Stop listening and close all connections; what was held back goes without. */
void
sim_http_stop(struct MHD_Daemon *http)
{
	pthread_mutex_lock(&sim.lock);
	sim.deaf = true;
	sim_http_release(true);
	pthread_mutex_unlock(&sim.lock);
	MHD_stop_daemon(http);
	pthread_mutex_lock(&sim.lock);
	sim.deaf = false;
	pthread_mutex_unlock(&sim.lock);
}
