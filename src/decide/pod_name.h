/*
 * decide/pod_name.h
 *	  How a pod says whose it is. Pure.
 */
#ifndef GPU_ORCH_POD_NAME_H
#define GPU_ORCH_POD_NAME_H

#include <stdbool.h>

/* The hex digits of an installation's id, and how many of them a pod's name shows. */
#define INSTALLATION_ID_LENGTH 32
#define INSTALLATION_SHORT 8

/* A pod's name: gpo-<installation>-<installation epoch>-<nonce>. */
#define POD_NAME_PREFIX "gpo-"
#define POD_NONCE_LENGTH 26

/* Lower-case base32 without the letters that look like digits. */
#define POD_NONCE_ALPHABET "0123456789abcdefghjkmnpqrstvwxyz"

extern bool pod_name_installation_valid(const char *id);
extern bool pod_name_is_of(const char *name, const char *env_installation, const char *id);
extern long long pod_name_epoch(const char *name);
extern const char *pod_name_nonce(const char *name);

#endif
