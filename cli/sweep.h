/*
 * sweep.h
 *	  What the files of gpu-orch-sweep share.
 */
#ifndef GPU_ORCH_SWEEP_H
#define GPU_ORCH_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define PROGRAM_NAME "gpu-orch-sweep"
#define DEFAULT_API_URL "https://api.runpod.io/v2"

/* How it ends. */
#define EXIT_GONE 0
#define EXIT_LEFT 1
#define EXIT_BAD_USAGE 2
#define EXIT_UNREAD 3

#define MAX_KEY_BYTES 4096
#define MAX_ID_BYTES 64

/* A pod of the installation; all texts are printable ASCII. */
typedef struct Pod
{
	char id[MAX_ID_BYTES + 1];
	bool ours;
	char name[64];
	char status[32];
	char gpu[64];
	double price;	   /* dollars an hour for the whole pod; 0: not known */
	time_t created_at; /* 0: not known */
} Pod;

/* A complete list of the account's pods: ours by id, the others as a number. */
typedef struct PodList
{
	Pod *pods;
	int n;
	int n_foreign;
} PodList;

typedef enum ListOutcome
{
	LIST_READ,
	LIST_FAILED,	/* may be tried again */
	LIST_REFUSED,	/* trying again is of no use */
	LIST_TIME_OVER, /* nothing was asked */
} ListOutcome;

/* What came of one request. */
typedef struct HttpAnswer
{
	int status;		  /* 0: no whole answer came */
	const char *body; /* until the next request */
	size_t body_len;
	const char *error; /* why no answer came; never what the provider said */
} HttpAnswer;

/* sweep_key.c */
extern const char *key_read(const char *path, char key[MAX_KEY_BYTES + 1]);

/* sweep_http.c */
extern bool http_start(const char *api_url, const char *key, int wait_seconds);
extern void http_stop(void);
extern bool http_request(const char *method, const char *path, HttpAnswer *answer);
extern void http_failed(void);
extern void http_pause(double seconds);
extern double http_pause_left(void);
extern char *http_query(const char *path, const char *text);

/* sweep_list.c */
extern ListOutcome list_read(const char *installation, PodList *list);
extern void list_free(PodList *list);
extern bool list_same(const PodList *a, const PodList *b);

/* sweep_rounds.c */
extern int rounds_run(const char *installation, bool end_them);

/* sweep_main.c */
extern void out_of_memory(void) __attribute__((noreturn));
extern void *xrealloc(void *pointer, size_t size);
extern char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
