/*
 * sweep_key.c
 *	  The provider's key, from its file.
 *
 * The file must be nobody else's to read. Must not print a byte of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sweep.h"

/* What is wrong with an open key file as a file; NULL: nothing. */
static const char *
file_problem(int fd)
{
	struct stat status;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return "it is not a regular file";
	if (status.st_uid != geteuid() && status.st_uid != 0)
		return "it belongs to another user; run this as its owner";
	if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return "others than its owner may use it; chmod it to 0600";
	if (status.st_size > MAX_KEY_BYTES)
		return "it is larger than a key can be";
	return NULL;
}

/* Take the key from an open file, without the blanks and line ends after it; NULL or what is wrong. */
static const char *
take_key(int fd, char key[MAX_KEY_BYTES + 1])
{
	ssize_t length = read(fd, key, MAX_KEY_BYTES);

	if (length < 0)
		return "it cannot be read";
	while (length > 0 && memchr(" \r\n", key[length - 1], 3) != NULL)
		length--;
	key[length] = '\0';
	if (length == 0)
		return "it is empty";
	for (ssize_t i = 0; i < length; i++)
	{
		if (key[i] < 0x21 || key[i] > 0x7e)
			return "it holds other bytes than a key can have";
	}
	return NULL;
}

/* Read the key; NULL or why the file cannot be used. The caller overwrites the key in any case. */
const char *
key_read(const char *path, char key[MAX_KEY_BYTES + 1])
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const char *problem;

	if (fd < 0)
		return errno == ELOOP ? "it is a symbolic link" : strerror(errno);
	problem = file_problem(fd);
	if (problem == NULL)
		problem = take_key(fd, key);
	close(fd);
	return problem;
}
