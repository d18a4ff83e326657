/*
 * leader_key.c
 *	  The provider's key: read from its file, and nowhere else to be found.
 *
 * The file must be ours and nobody else's to read. It is looked at again at each
 * tick and read again when it has changed, so a key is replaced without a
 * restart. Nothing that is logged or stored here contains a byte of it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "guc.h"
#include "leader.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_KEY_BYTES 4096

/* Take the key from an open file. Returns NULL or what is wrong. */
static const char *
read_key(int fd, char key[MAX_KEY_BYTES + 1])
{
	struct stat status;
	ssize_t		length;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return "it is not a regular file";
	if (status.st_uid != geteuid())
		return "it is not owned by the server's user";
	if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "others than its owner may use it; chmod it to 0600";
	if (status.st_size > MAX_KEY_BYTES)
		return "it is larger than a key can be";
	length = read(fd, key, MAX_KEY_BYTES);
	if (length < 0)
		return "it cannot be read";
	while (length > 0 && (key[length - 1] == '\n' || key[length - 1] == '\r' ||
						  key[length - 1] == ' '))
		length--;
	key[length] = '\0';
	if (length == 0)
		return "it is empty";
	for (ssize_t i = 0; i < length; i++)
		if (key[i] < 0x21 || key[i] > 0x7e)
			return "it holds other bytes than a key can have";
	return NULL;
}

static void
close_cloud(Leader *leader)
{
	if (leader->cloud != NULL)
		cloud_close(leader->cloud);
	leader->cloud = NULL;
	leader->cloud_generation++;
	leader->list_started = 0;
	leader->catalog_in_flight = false;
	leader_look_lost_calls(leader);
}

static void
unusable(Leader *leader, const char *why)
{
	close_cloud(leader);
	leader->key_changed = 0;
	leader_api_failed(leader, why, why, -1);
	leader_answer_reconcile(PG_UINT64_MAX, true);
}

/*
 * Make leader->cloud fit the settings and the key's file: open it, give it a
 * changed key, or close it and say why. Must be called outside of transactions.
 */
void
leader_open_cloud(Leader *leader)
{
	const char *path = guc_runpod_api_key_file;
	struct stat status;
	TimestampTz changed;
	char		key[MAX_KEY_BYTES + 1];
	const char *wrong;
	char	   *error = NULL;
	int			fd;

	if (path == NULL || path[0] == '\0')
	{
		unusable(leader, "gpu_orch.runpod_api_key_file is not set");
		return;
	}
	if (lstat(path, &status) != 0)
	{
		unusable(leader, psprintf("key file \"%s\" cannot be used: %m", path));
		return;
	}
	changed = time_t_to_timestamptz(status.st_mtim.tv_sec) + status.st_mtim.tv_nsec / 1000;
	if (leader->cloud != NULL && changed == leader->key_changed &&
		strcmp(leader->cloud_url, guc_runpod_api_url) == 0)
		return;

	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		unusable(leader, psprintf("key file \"%s\" cannot be used: %m", path));
		return;
	}
	wrong = read_key(fd, key);
	CloseTransientFile(fd);
	if (wrong != NULL)
	{
		explicit_bzero(key, sizeof(key));
		unusable(leader, psprintf("key file \"%s\" cannot be used: %s", path, wrong));
		return;
	}

	if (leader->cloud != NULL && strcmp(leader->cloud_url, guc_runpod_api_url) == 0)
		cloud_set_key(leader->cloud, key);
	else
	{
		close_cloud(leader);
		leader->cloud = cloud_open(guc_runpod_api_url, key, guc_http_connect_timeout,
								   guc_http_timeout, &error);
		leader->cloud_generation++;
		if (cloud_warning() != NULL)
			ereport(WARNING, (errmsg("gpu_orch: %s", cloud_warning())));
	}
	explicit_bzero(key, sizeof(key));
	if (leader->cloud == NULL)
	{
		unusable(leader, psprintf("gpu_orch.runpod_api_url cannot be used: %s", error));
		return;
	}
	if (leader->cloud_url != NULL)
		pfree(leader->cloud_url);
	leader->cloud_url = MemoryContextStrdup(leader->memory, guc_runpod_api_url);
	leader->key_changed = changed;
	leader->api_failures = 0;
	leader->api_retry_at = 0;
	/* another key may be another account */
	leader_look_new_key(leader);
	leader_look_first(leader);
}
