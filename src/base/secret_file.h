/*
 * base/secret_file.h
 *	  Files that hold a secret.
 */
#ifndef GPU_ORCH_SECRET_FILE_H
#define GPU_ORCH_SECRET_FILE_H

extern const char *secret_file_read(int fd, char *text, ssize_t max, ssize_t *length);
extern char *secret_file_text(const char *path, ssize_t max, const char **wrong);

#endif
