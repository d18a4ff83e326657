/*
 * test_pod_name.c
 *	  Whose pod it is: near misses are foreign.
 */
#include <string.h>

#include "decide/pod_name.h"
#include "unit.h"

#define ID "0123456789abcdef0123456789abcdef"
#define NONCE "0123456789abcdefghjkmnpqrs"

static void
is_of(const char *what, bool wants, const char *name, const char *env_installation)
{
	ok(pod_name_is_of(name, env_installation, ID) == wants, "pod name: %s", what);
}

void
test_pod_name(void)
{
	is_of("ours, with the whole id in its environment", true, "gpo-01234567-1-" NONCE, ID);
	is_of("ours by its name alone", true, "gpo-01234567-2147483647-" NONCE, NULL);
	is_of("the same short id, another installation", false, "gpo-01234567-1-" NONCE,
		  "0123456789abcdef0123456789abcdee");
	is_of("an environment that holds only the start", false, "gpo-01234567-1-" NONCE, "01234567");
	is_of("an environment that holds nothing", false, "gpo-01234567-1-" NONCE, "");
	is_of("another installation", false, "gpo-01234568-1-" NONCE, NULL);
	is_of("a name that is another's and an environment that is ours", false,
		  "gpo-01234568-1-" NONCE, ID);
	is_of("a longer id", false, "gpo-012345670-1-" NONCE, NULL);
	is_of("a shorter id", false, "gpo-0123456-1-" NONCE, NULL);
	is_of("capitals", false, "GPO-01234567-1-" NONCE, NULL);
	is_of("something before it", false, "xgpo-01234567-1-" NONCE, NULL);
	is_of("something after it", false, "gpo-01234567-1-" NONCE "0", NULL);
	is_of("a short nonce", false, "gpo-01234567-1-0123456789abcdefghjkmnpqr", NULL);
	is_of("a letter that nonces do not have", false, "gpo-01234567-1-0123456789abcdefghijkmnpqr",
		  NULL);
	is_of("no epoch", false, "gpo-01234567--" NONCE, NULL);
	is_of("a negative epoch", false, "gpo-01234567--1-" NONCE, NULL);
	is_of("an epoch that is too long", false, "gpo-01234567-12345678901-" NONCE, NULL);
	is_of("the prefix alone", false, "gpo-", NULL);
	is_of("nothing", false, "", NULL);
	ok(pod_name_installation_valid(ID), "pod name: an installation's id");
	ok(!pod_name_installation_valid("01234567"), "pod name: a short id is none");
	ok(!pod_name_installation_valid(ID "0"), "pod name: nor a longer one");
	ok(!pod_name_installation_valid("0123456789ABCDEF0123456789ABCDEF"), "pod name: nor capitals");
	ok(!pod_name_installation_valid(""), "pod name: nor nothing");
	ok(pod_name_epoch("gpo-01234567-9999999999-" NONCE) == 9999999999LL, "pod name: its epoch");
	ok(pod_name_epoch("gpo-01234567--" NONCE) == 0, "pod name: a name of another form has none");
	ok(strcmp(pod_name_nonce("gpo-01234567-1-" NONCE), NONCE) == 0, "pod name: its nonce");
	ok(pod_name_nonce("gpo-01234567-1") == NULL,
	   "pod name: a name of another form has none either");
}
