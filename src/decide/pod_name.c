/*
 * decide/pod_name.c
 *	  Whose pod is this? The one rule by which pods are told from those of others, for the leader and
 *	  for the programs that act without a database.
 *
 * Pure: no PostgreSQL header. Must never find a pod to be ours that could be another's: where the name
 * is not exactly of our form, it is foreign.
 */
#include <stdlib.h>
#include <string.h>

#include "decide/pod_name.h"

#define HEX_DIGITS "0123456789abcdef"

/* Is this an installation's id, in full? */
bool
pod_name_installation_valid(const char *id)
{
	return strlen(id) == INSTALLATION_ID_LENGTH && strspn(id, HEX_DIGITS) == INSTALLATION_ID_LENGTH;
}

/*
 * The short id of the installation in a name of exactly our form, INSTALLATION_SHORT characters without
 * an end; NULL if the name is of any other form.
 */
static const char *
short_installation(const char *name)
{
	const char *installation = name + strlen(POD_NAME_PREFIX);
	const char *rest;
	size_t digits;

	if (strncmp(name, POD_NAME_PREFIX, strlen(POD_NAME_PREFIX)) != 0 ||
		strspn(installation, HEX_DIGITS) != INSTALLATION_SHORT ||
		installation[INSTALLATION_SHORT] != '-')
		return NULL;
	rest = installation + INSTALLATION_SHORT + 1;
	digits = strspn(rest, "0123456789");
	if (digits == 0 || digits > 10 || rest[digits] != '-')
		return NULL;
	rest += digits + 1;
	if (strlen(rest) != POD_NONCE_LENGTH || strspn(rest, POD_NONCE_ALPHABET) != POD_NONCE_LENGTH)
		return NULL;
	return installation;
}

/*
 * Whether a pod belongs to the installation with this id: its name is of our form and carries the short
 * id, and its environment the whole of it. env_installation is NULL where the environment is not shown;
 * then the name alone decides.
 */
bool
pod_name_is_of(const char *name, const char *env_installation, const char *id)
{
	const char *in_name = short_installation(name);

	return in_name != NULL && strncmp(in_name, id, INSTALLATION_SHORT) == 0 &&
		(env_installation == NULL || strcmp(env_installation, id) == 0);
}

/*
 * The installation epoch in the name of a pod that is ours, which pod_name_is_of() said; 0 if there is
 * none.
 */
long long
pod_name_epoch(const char *name)
{
	const char *installation = short_installation(name);

	return installation == NULL ? 0 : strtoll(installation + INSTALLATION_SHORT + 1, NULL, 10);
}

/* The nonce in the name of a pod that is ours, within the name; NULL if there is none. */
const char *
pod_name_nonce(const char *name)
{
	return short_installation(name) == NULL ? NULL : name + strlen(name) - POD_NONCE_LENGTH;
}
