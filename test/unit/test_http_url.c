/*
 * test_http_url.c
 *	  Where the provider's key may be sent, and what each refusal says.
 */
#include <stddef.h>

#include "http/url.h"
#include "unit.h"

void
test_http_url(void)
{
	static const struct
	{
		const char *url;
		bool is_base;
		const char *problem; /* NULL: allowed */
	} cases[] = {
		{ "https://rest.runpod.io/v1", true, NULL },
		{ "https://rest.runpod.io/v1/pods?name=x", false, NULL },
		{ "http://127.0.0.1:8080/v1", true, NULL },
		{ "http://[::1]:8080", true, NULL },
		{ "http://localhost", true, NULL },
		{ "", true, "it is not a URL" },
		{ "rest.runpod.io", true, "it is not a URL" },
		{ "https://", true, "it is not a URL" },
		{ "https://me:secret@rest.runpod.io", true, "it holds a user" },
		{ "https://:secret@rest.runpod.io", true, "it holds a user" },
		{ "http://127.0.0.1@example.com", true, "it holds a user" },
		{ "https://rest.runpod.io/v1?key=1", true, "it has a query or a fragment" },
		{ "https://rest.runpod.io/v1#x", true, "it has a query or a fragment" },
		{ "ftp://rest.runpod.io", true, "its scheme is not https" },
		{ "http://rest.runpod.io", true, "plain http is for 127.0.0.1, [::1] and localhost only" },
		{ "http://127.0.0.1.example.com", true,
		  "plain http is for 127.0.0.1, [::1] and localhost only" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const char *problem = http_url_problem(cases[i].url, cases[i].is_base);

		ok(problem == NULL ? cases[i].problem == NULL : same(problem, cases[i].problem),
		   "url: \"%s\" %s", cases[i].url, problem ? problem : "is allowed");
	}
	ok(http_url_problem("file:///etc/passwd", false) != NULL, "url: a file is none");
}
