/*
 * leader/key.c
 *	  The provider's key: read from its file, and nowhere else to be found.
 *
 * The file must be ours and nobody else's to read. It is looked at again at each
 * tick and read again when it has changed, so a key is replaced without a
 * restart: the new one is tried, and until it has worked the old one serves. Nothing that is logged or stored here contains a byte of it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/guc.h"
#include "leader/leader.h"
#include "miscadmin.h"
#include "base/secret_file.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_KEY_BYTES 4096

/* Take the key from an open file. Returns NULL or what is wrong. */
static const char *
read_key(int fd, char key[MAX_KEY_BYTES + 1])
{
	ssize_t length;
	const char *wrong = secret_file_read(fd, key, MAX_KEY_BYTES, &length);

	if (wrong != NULL)
		return wrong;
	while (length > 0 &&
		   (key[length - 1] == '\n' || key[length - 1] == '\r' || key[length - 1] == ' '))
		length--;
	key[length] = '\0';
	if (length == 0)
		return "it is empty";
	for (ssize_t i = 0; i < length; i++)
		if (key[i] < 0x21 || key[i] > 0x7e)
			return "it holds other bytes than a key can have";
	return NULL;
}

/* Forget the key that was to replace ours. */
static void
forget_new_key(Leader *leader)
{
	if (leader->new_key == NULL)
		return;
	explicit_bzero(leader->new_key, strlen(leader->new_key));
	pfree(leader->new_key);
	leader->new_key = NULL;
}

static void
close_cloud(Leader *leader)
{
	if (leader->cloud != NULL)
		cloud_close(leader->cloud);
	leader->cloud = NULL;
	leader_stats_key(NULL);
	leader->cloud_generation++;
	leader->list_started = 0;
	leader->catalog_in_flight = false;
	leader_look_lost_calls(leader);
	leader->trying_key = false;
	forget_new_key(leader);
	leader_gate_begin_anew(leader);
}

/* Whether the session is one with the provider that the settings name. */
static bool
is_open(const Leader *leader)
{
	return leader->cloud != NULL && strcmp(leader->cloud_url, guc_runpod_api_url) == 0;
}

/* Close the session, since there can be none, and say why. */
static void
no_session(Leader *leader, const char *why)
{
	close_cloud(leader);
	leader_gate_fail(leader, GATE_SETUP, why, why);
	leader_answer_reconcile(PG_UINT64_MAX, true);
}

/* The key file cannot be used: go on with the key that we have, if there is one. */
static void
unusable(Leader *leader, const char *why)
{
	memset(&leader->key_file, 0, sizeof(FileStamp));
	if (is_open(leader))
		leader_gate_fail(leader, GATE_NEW_KEY, why, why);
	else
		no_session(leader, why);
}

static FileStamp
stamp_of(const struct stat *status)
{
	FileStamp stamp = { .device = (int64) status->st_dev,
						.inode = (int64) status->st_ino,
						.size = (int64) status->st_size,
						.modified =
							(int64) status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec,
						.changed =
							(int64) status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec };

	return stamp;
}

/* Open a session with a key that was just read, for the provider that the settings name. */
static void
open_cloud(Leader *leader, const char *key)
{
	char *error = NULL;

	close_cloud(leader);
	leader->cloud = cloud_open(guc_runpod_api_url, key, guc_http_ca_file, guc_http_connect_timeout,
							   guc_http_timeout, &error);
	leader->cloud_generation++;
	if (cloud_warning() != NULL)
		ereport(WARNING, (errmsg("gpu_orch: %s", cloud_warning())));
	if (leader->cloud == NULL)
	{
		no_session(leader, psprintf("gpu_orch.runpod_api_url cannot be used: %s", error));
		return;
	}
	if (leader->cloud_url != NULL)
		pfree(leader->cloud_url);
	leader->cloud_url = MemoryContextStrdup(leader->memory, guc_runpod_api_url);
	leader_stats_key(key);
	leader_look_new_key(leader);
	leader_look_first(leader);
}

/*
 * Try the key that is to replace ours with a call, unless that was refused a moment ago or the
 * provider asked for a wait. All other calls go on with our key.
 */
static void
try_new_key(Leader *leader)
{
	TimestampTz now = clock_now();
	char *error = NULL;

	if (leader->new_key == NULL || leader->trying_key ||
		leader_gate_is_quiet(leader, CLOUD_LIST, now) || leader->gates[GATE_NEW_KEY].until > now)
		return;
	if (cloud_try_key(leader->cloud, TAG_TRY_KEY, leader->new_key, &error))
		leader->trying_key = true;
	else
		leader_note_error("trying a new key", error);
}

/*
 * Take the answer to the call that tried a key: use the key from now on if the call worked. An
 * answer that says nothing of the key leaves it to be tried at the next tick.
 */
void
leader_key_tried(Leader *leader, const CloudAnswer *answer, const char *what)
{
	leader->trying_key = false;
	if (leader->new_key == NULL)
		return;
	if (answer->verdict == CLOUD_OK || (answer->http_status >= 200 && answer->http_status <= 299))
	{
		cloud_set_key(leader->cloud, leader->new_key);
		leader_stats_key(leader->new_key);
		forget_new_key(leader);
		leader_gate_lift(leader, GATE_NEW_KEY);
		leader_gate_lift(leader, GATE_KEY);
		leader_gate_lift(leader, GATE_RIGHTS);
		leader_gate_lift(leader, GATE_MONEY);
		leader_gate_lift(leader, CLOUD_LIST);
		leader_gate_lift(leader, CLOUD_DELETE);
		ereport(guc_log_level, (errmsg("gpu_orch: the new API key works and is used from now on")));
		/* another key may be another account */
		leader_look_new_key(leader);
		leader_look_first(leader);
	}
	else if (answer->reason == CR_AUTH || answer->reason == CR_FORBIDDEN)
		leader_gate_fail(leader, GATE_NEW_KEY, what, answer->message);
}

/*
 * Make leader->cloud fit the settings and the key's file: open it, try a changed key,
 * or close it and say why. A key that has worked is used until another one has. Must be
 * called outside of transactions.
 */
void
leader_open_cloud(Leader *leader)
{
	const char *path = guc_runpod_api_key_file;
	struct stat status;
	FileStamp stamp;
	char key[MAX_KEY_BYTES + 1];
	const char *wrong;
	int fd;

	if (path == NULL || path[0] == '\0')
	{
		no_session(leader, "gpu_orch.runpod_api_key_file is not set");
		return;
	}
	if (lstat(path, &status) != 0)
	{
		unusable(leader, psprintf("key file \"%s\" cannot be used: %m", path));
		return;
	}
	stamp = stamp_of(&status);
	if (is_open(leader) && memcmp(&stamp, &leader->key_file, sizeof(FileStamp)) == 0)
	{
		try_new_key(leader);
		return;
	}

	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		unusable(leader, psprintf("key file \"%s\" cannot be used: %m", path));
		return;
	}
	wrong = read_key(fd, key);
	CloseTransientFile(fd);
	if (wrong != NULL)
		unusable(leader, psprintf("key file \"%s\" cannot be used: %s", path, wrong));
	else
	{
		leader->key_file = stamp;
		if (is_open(leader))
		{
			forget_new_key(leader);
			leader->new_key = MemoryContextStrdup(leader->memory, key);
			leader_gate_lift(leader, GATE_NEW_KEY);
			try_new_key(leader);
		}
		else
			open_cloud(leader, key);
	}
	explicit_bzero(key, sizeof(key));
}
