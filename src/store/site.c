/*
 * store/site.c
 *	  Where this copy of the database runs, and whether that is where it ran last.
 *
 * A server that was restarted, its promoted standby and a copy of its disks hold
 * the same rows. What tells them apart is the incarnation: the system identifier,
 * the database, the timeline, and the site. A site is named by a token in a file
 * outside of the data directory, which a backup of that does not carry; without
 * the file by the machine and the data directory's path. Tokens are compared and
 * stored as digests alone. Reads no table: the row is store/installation.c's.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/cryptohash.h"
#include "base/guc.h"
#include "miscadmin.h"
#include "base/secret_file.h"
#include "storage/fd.h"
#include "store/site.h"
#include "utils/builtins.h"

#define MACHINE_ID_FILE "/etc/machine-id"
#define MAX_FILE_BYTES 16384
#define MIN_TOKEN_BYTES 16
#define MAX_TOKEN_BYTES 200

/* The SHA-256 of some bytes, in hex; palloc'd. */
static char *
digest_of(const char *bytes, size_t length)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	char *hex = palloc(SITE_DIGEST_LENGTH + 1);

	if (context == NULL || pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) bytes, length) < 0 ||
		pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute the digest of a site")));
	pg_cryptohash_free(context);
	hex_encode((const char *) digest, sizeof(digest), hex);
	hex[SITE_DIGEST_LENGTH] = '\0';
	return hex;
}

/* The digest of this machine's id, where it has one, and the data directory's path. */
static char *
host_digest(void)
{
	char machine[64] = "";
	int fd = OpenTransientFile(MACHINE_ID_FILE, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
	{
		ssize_t length = read(fd, machine, sizeof(machine) - 1);

		machine[Max(length, 0)] = '\0';
		machine[strcspn(machine, "\n")] = '\0';
		CloseTransientFile(fd);
	}
	{
		char *text = psprintf("%s\n%s", machine, DataDir);

		return digest_of(text, strlen(text));
	}
}

/* Read an open token file as a string. Returns NULL or what is wrong with it. */
static const char *
read_tokens(int fd, char text[MAX_FILE_BYTES + 1])
{
	ssize_t length;
	const char *wrong = secret_file_read(fd, text, MAX_FILE_BYTES, &length);

	if (wrong != NULL)
		return wrong;
	if (strlen(text) != length)
		return "it holds other bytes than text";
	return NULL;
}

/* Take the tokens of a file: the first is ours. Returns NULL or what is wrong with them. */
static const char *
take_tokens(char *text, Incarnation *mine, SiteList *others)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\r\n", &rest); line != NULL;
		 line = strtok_r(NULL, "\r\n", &rest))
	{
		size_t length = strlen(line);

		while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\t'))
			length--;
		if (length < MIN_TOKEN_BYTES || length > MAX_TOKEN_BYTES)
			return "each line must hold a token of 16 to 200 characters";
		for (size_t i = 0; i < length; i++)
			if (line[i] < 0x21 || line[i] > 0x7e)
				return "a token must be of printable ASCII without blanks";
		if (mine->site == NULL)
			mine->site = digest_of(line, length);
		else if (others->n == MAX_SITES)
			return "it lists too many sites";
		else
			others->digests[others->n++] = digest_of(line, length);
	}
	return mine->site == NULL ? "it holds no token" : NULL;
}

/* The server and the database that we are in; the rest of *mine is not known. */
void
store_site_place(Incarnation *mine)
{
	memset(mine, 0, sizeof(*mine));
	mine->system_identifier = psprintf(UINT64_FORMAT, GetSystemIdentifier());
	mine->database = MyDatabaseId;
}

/*
 * All of where we are, and whom this site may take over from; not during recovery.
 * Returns NULL, or why the site token file cannot be used: then *mine lacks its
 * site, and says nothing. Everything is palloc'd.
 */
const char *
store_site_read(Incarnation *mine, SiteList *others)
{
	const char *path = guc_site_token_file;
	char *text;
	const char *wrong;
	int fd;

	store_site_place(mine);
	others->n = 0;
	mine->timeline = (int32) GetWALInsertionTimeLine();
	mine->host = host_digest();
	if (path == NULL || path[0] == '\0')
		return NULL;
	fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return psprintf("site token file \"%s\" cannot be used: %m", path);
	text = palloc(MAX_FILE_BYTES + 1);
	wrong = read_tokens(fd, text);
	CloseTransientFile(fd);
	if (wrong == NULL)
		wrong = take_tokens(text, mine, others);
	explicit_bzero(text, MAX_FILE_BYTES + 1);
	pfree(text);
	return wrong == NULL ? NULL :
						   psprintf("site token file \"%s\" cannot be used: %s", path, wrong);
}

static bool
same(const char *a, const char *b)
{
	return a == NULL ? b == NULL : b != NULL && strcmp(a, b) == 0;
}

/* Where both have a token, it names the site; otherwise the machine and the path do. */
static bool
same_site(const Incarnation *was, const Incarnation *mine)
{
	if (was->site != NULL && mine->site != NULL)
		return same(was->site, mine->site);
	return same(was->host, mine->host);
}

static bool
site_is_listed(const Incarnation *was, const SiteList *others)
{
	for (int i = 0; i < others->n; i++)
		if (same(was->site, others->digests[i]))
			return true;
	return false;
}

/*
 * Compare where we are with what is recorded. Of SITE_DIFFERS the differences are
 * appended to *difference, as an operator should read them.
 */
SiteVerdict
store_site_compare(const Incarnation *was, const Incarnation *mine, const SiteList *others,
				   StringInfo difference)
{
	bool at_home;

	if (strcmp(was->system_identifier, mine->system_identifier) != 0)
	{
		appendStringInfo(difference, "made on another server: %s", was->system_identifier);
		return SITE_DIFFERS;
	}
	if (was->database != mine->database)
	{
		appendStringInfo(difference, "made in another database: %u", was->database);
		return SITE_DIFFERS;
	}
	if (mine->timeline == 0)
		return SITE_SAME;
	if (was->timeline == 0)
		return SITE_RECORD;

	at_home = same_site(was, mine);
	if (at_home && was->timeline == mine->timeline)
		return same(was->site, mine->site) && same(was->host, mine->host) ? SITE_SAME : SITE_RECORD;
	if (was->timeline < mine->timeline && site_is_listed(was, others))
		return SITE_TAKES_OVER;

	if (!at_home)
		appendStringInfo(
			difference, "active at another %s, which %s",
			was->site != NULL && mine->site != NULL ? "site" : "machine or in another directory",
			site_is_listed(was, others) ? "is listed, but has not been promoted here" :
										  "is not listed in the site token file");
	if (was->timeline != mine->timeline)
		appendStringInfo(difference, "%sactive on timeline %d, and this is timeline %d",
						 at_home ? "" : "; ", was->timeline, mine->timeline);
	return SITE_DIFFERS;
}
