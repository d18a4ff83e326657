/*
 * http/client.h
 *	  One HTTP request: how it is sent, how it ended.
 */
#ifndef GPU_ORCH_HTTP_CLIENT_H
#define GPU_ORCH_HTTP_CLIENT_H

#include "datatype/timestamp.h"

typedef struct HttpClient HttpClient;

typedef enum HttpMethod
{
	HTTP_GET,
	HTTP_POST, /* always on an HTTP/1.1 connection of its own */
	HTTP_DELETE
} HttpMethod;

/* How far a request came. */
typedef enum HttpPhase
{
	HTTP_NOTHING_SENT, /* proved: no byte of it left this machine */
	HTTP_SENT,		   /* the other side may have acted on it */
	HTTP_COMPLETE	   /* a whole answer arrived */
} HttpPhase;

/* What to send. Everything is copied. */
typedef struct HttpRequest
{
	HttpMethod method;
	const char *url;	 /* passes http_url_problem() */
	const char *body;	 /* JSON, NULL for none; POST only */
	const char *bearer;	 /* the key; NULL: none */
	const char *ca_file; /* certificates to trust in place of the system's; NULL: those */
	int connect_timeout_ms;
	int timeout_ms;		 /* from the start to the last byte */
	int stall_timeout_s; /* longest silence that is accepted; 0: timeout_ms alone */
	size_t max_answer;	 /* bytes; a longer body ends the transfer */
	void *user;			 /* returned with the result */
} HttpRequest;

/* What became of it. */
typedef struct HttpResult
{
	void *user;
	HttpPhase phase;
	int status; /* 0: no status line arrived */
	char *body; /* terminated; "" unless complete */
	size_t body_len;
	char *content_type; /* these are "" where the header was absent */
	char *retry_after;
	char *rate_limit;
	TimestampTz date; /* the Date header; 0: absent or unreadable */
	char *error;	  /* what was done, our reason, libcurl's; NULL if complete */
} HttpResult;

extern const char *http_client_warning(void);
extern char *http_client_escape(const char *text);

extern HttpClient *http_client_create(char **error);
extern void http_client_destroy(HttpClient *client);
extern int http_client_fd(const HttpClient *client);
extern long http_client_timeout_ms(const HttpClient *client);
extern void http_client_drive(HttpClient *client);
extern bool http_client_start(HttpClient *client, const HttpRequest *request, char **error);
extern bool http_client_next(HttpClient *client, HttpResult *result);

#endif
