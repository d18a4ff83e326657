/*
 * http/url.h
 *	  Which URLs the provider may be called at. Pure.
 */
#ifndef GPU_ORCH_HTTP_URL_H
#define GPU_ORCH_HTTP_URL_H

#include <stdbool.h>

extern const char *http_url_problem(const char *url, bool is_base);

#endif
