/*
 * base/secret_file.c
 *	  Files that hold a secret: who may have them, and how they are read.
 *
 * What stands in a file is for the caller to judge, and to wipe.
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret_file.h"
#include "storage/fd.h"

/*
 * Read an open file that nobody but the server's user may use, as a string; text has
 * room for max bytes and one more. Returns NULL, or what is wrong, as a constant.
 */
const char *
secret_file_read(int fd, char *text, ssize_t max, ssize_t *length)
{
	struct stat status;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return "it is not a regular file";
	if (status.st_uid != geteuid())
		return "it is not owned by the server's user";
	if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "others than its owner may use it; chmod it to 0600";
	if (status.st_size > max)
		return "it is too large";
	*length = read(fd, text, max);
	if (*length < 0)
		return "it cannot be read";
	text[*length] = '\0';
	return NULL;
}

/*
 * The text of a file of at most max bytes, without the white space at its end, palloc'd for
 * the caller to wipe. NULL, and *wrong says why, where it cannot be used.
 */
char *
secret_file_text(const char *path, ssize_t max, const char **wrong)
{
	int fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char *text;
	ssize_t length = 0;

	if (fd < 0)
	{
		*wrong = psprintf("%m");
		return NULL;
	}
	text = palloc0(max + 1);
	*wrong = secret_file_read(fd, text, max, &length);
	CloseTransientFile(fd);
	while (length > 0 && isspace((unsigned char) text[length - 1]))
		text[--length] = '\0';
	if (*wrong == NULL && (length == 0 || strlen(text) != length || strchr(text, '\n') != NULL))
		*wrong = "it does not hold one line";
	if (*wrong == NULL)
		return text;
	explicit_bzero(text, max);
	pfree(text);
	return NULL;
}
