/*
 * store/installation.h
 *	  Who we are to the provider, and whether this copy may act.
 */
#ifndef GPU_ORCH_STORE_INSTALLATION_H
#define GPU_ORCH_STORE_INSTALLATION_H

#include "decide/pod_name.h"
#include "db/spi_util.h"

/* The longest name of a provider's account. */
#define MAX_ACCOUNT_LENGTH 200

typedef struct Installation
{
	char id[INSTALLATION_ID_LENGTH + 1];
	int32 epoch;
	int64 leader_epoch;
	bool hold;
	bool paused;
	char account[MAX_ACCOUNT_LENGTH + 1]; /* "": not known yet */
	TimestampTz created_at;
	TimestampTz taken_over_at; /* adopted, or promoted at a listed site; 0: never */
	bool killing;			   /* the whole fleet is being ended; paused as well */
} Installation;

extern bool store_installation_read(Installation *installation);
extern bool store_installation_is_fed(void);
extern bool store_installation_check(Installation *installation, bool begins, TimestampTz now);
extern void store_installation_hold(Installation *installation, const char *alert,
									const char *reason, TimestampTz now);
extern int64 store_installation_acting_epoch(void);
extern void store_installation_saw_epoch(int64 epoch);
extern void store_installation_ensure(Installation *installation, TimestampTz now);
extern void store_installation_pin(const char *account);
extern void store_installation_lock(void);
extern void store_installation_take(TimestampTz now);
extern int64 store_installation_new_leader(void);
extern bool store_installation_share(Installation *installation);
extern void store_installation_pause(bool paused, TimestampTz now);
extern void store_installation_kill(TimestampTz now);
extern void store_installation_adopt(TimestampTz now);

#endif
