/*
 * http/mux.h
 *	  Many transfers at once, all of them behind one descriptor.
 *
 * Only http/client.c includes this; it is where libcurl's types end.
 */
#ifndef GPU_ORCH_HTTP_MUX_H
#define GPU_ORCH_HTTP_MUX_H

#include <curl/curl.h>

typedef struct HttpMux HttpMux;

extern int64 http_mux_clock_ms(void);
extern const char *http_mux_warning(void);
extern HttpMux *http_mux_create(char **error);
extern void http_mux_destroy(HttpMux *mux);
extern int http_mux_fd(const HttpMux *mux);
extern long http_mux_timeout_ms(const HttpMux *mux);
extern const char *http_mux_drive(HttpMux *mux);
extern const char *http_mux_add(HttpMux *mux, CURL *easy);
extern void http_mux_remove(HttpMux *mux, CURL *easy);
extern CURL *http_mux_next_done(HttpMux *mux, CURLcode *code);

#endif
