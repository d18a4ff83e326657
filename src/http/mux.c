/*
 * http/mux.c
 *	  Many transfers at once, all of them behind one descriptor: libcurl's multi
 *	  interface with its sockets in one epoll instance.
 *
 * The leader puts the descriptor into its WaitEventSet beside the latch and
 * postmaster death, and sleeps at most http_mux_timeout_ms(). Nothing here waits,
 * uses server memory in a callback, or raises through libcurl's frames. Never call in a
 * transaction. Nothing is cleaned up at exit: the kernel does that.
 */
#include "postgres.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "access/xact.h"
#include "http/mux.h"

#if LIBCURL_VERSION_NUM < 0x074a00
#error "gpu_orch needs libcurl 7.74 or later"
#endif

/* Idle connections that are kept, and events taken at once. */
#define MAX_IDLE_CONNECTIONS 8L
#define MAX_EVENTS 64

struct HttpMux
{
	CURLM *multi;
	int epoll_fd;
	int64 due_ms; /* libcurl's timer, by CLOCK_MONOTONIC; -1 none */
};

/* A clock that never steps, in milliseconds; not 0. */
int64
http_mux_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * libcurl tells which socket to watch for what. A socket that cannot be watched
 * is not reported to libcurl, which would give up every transfer for it; its own
 * transfer ends by its time limit.
 */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	HttpMux *mux = arg;
	struct epoll_event event = { 0 };

	event.data.fd = fd;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(mux->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		event.events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(mux->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0 && errno == ENOENT)
		(void) epoll_ctl(mux->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

/* libcurl sets its timer; http_mux_drive() fires it, never this callback. */
static int
set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpMux *mux = arg;

	mux->due_ms = timeout_ms < 0 ? -1 : http_mux_clock_ms() + timeout_ms;
	return 0;
}

/*
 * Free what libcurl gives back, and forget it: its copies of a request hold the key, and what is
 * merely freed may stay for as long as the process.
 */
static void
forget_and_free(void *memory)
{
	if (memory != NULL)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

/* realloc() for libcurl, which leaves nothing where the memory was. */
static void *
move_and_forget(void *memory, size_t size)
{
	void *moved = malloc(size);

	if (memory != NULL && moved != NULL)
	{
		memcpy(moved, memory, Min(size, malloc_usable_size(memory)));
		forget_and_free(memory);
	}
	return moved;
}

/*
 * Start libcurl once for this process, which must be the one that uses it: its
 * TLS state does not survive a fork. False if it cannot be started.
 */
static bool
start_libcurl(void)
{
	static bool started = false;

	if (!started)
	{
		/* libcurl would write the session's keys into the file that this names. */
		unsetenv("SSLKEYLOGFILE");
		started = curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, forget_and_free,
									   move_and_forget, strdup, calloc) == CURLE_OK;
	}
	return started;
}

/* What the administrator should know about this libcurl; NULL if all is well. */
const char *
http_mux_warning(void)
{
	int features = curl_version_info(CURLVERSION_NOW)->features;

	if ((features & CURL_VERSION_ASYNCHDNS) == 0)
		return "libcurl resolves names synchronously: a slow name server stalls the leader";
	if ((features & CURL_VERSION_SSL) == 0)
		return "libcurl was built without TLS: the provider cannot be reached";
#if LIBCURL_VERSION_NUM >= 0x075400
	if ((features & CURL_VERSION_THREADSAFE) == 0)
		return "libcurl's initialization is not thread-safe";
#endif
	return NULL;
}

/*
 * Make one; it lives on malloc until http_mux_destroy(). NULL with a reason
 * palloc'd in *error if libcurl or the kernel refuses.
 */
HttpMux *
http_mux_create(char **error)
{
	HttpMux *mux;

	Assert(!IsTransactionState());
	*error = NULL;
	mux = calloc(1, sizeof(HttpMux));
	if (mux == NULL)
	{
		*error = pstrdup("out of memory");
		return NULL;
	}
	mux->due_ms = -1;
	mux->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (mux->epoll_fd < 0)
		*error = psprintf("could not create an epoll descriptor: %m");
	else if (!start_libcurl() || (mux->multi = curl_multi_init()) == NULL)
		*error = pstrdup("libcurl could not be initialized");
	else if (curl_multi_setopt(mux->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
			 curl_multi_setopt(mux->multi, CURLMOPT_SOCKETDATA, mux) != CURLM_OK ||
			 curl_multi_setopt(mux->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
			 curl_multi_setopt(mux->multi, CURLMOPT_TIMERDATA, mux) != CURLM_OK ||
			 curl_multi_setopt(mux->multi, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS) !=
				 CURLM_OK ||
			 curl_multi_setopt(mux->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX) != CURLM_OK)
		*error = pstrdup("libcurl refused an option of its multi interface");
	if (*error == NULL)
		return mux;
	http_mux_destroy(mux);
	return NULL;
}

/* Free it, its connections and its descriptor. All transfers must have been removed. */
void
http_mux_destroy(HttpMux *mux)
{
	Assert(!IsTransactionState());
	if (mux->multi != NULL)
		curl_multi_cleanup(mux->multi);
	if (mux->epoll_fd >= 0)
		close(mux->epoll_fd);
	free(mux);
}

/* Readable when http_mux_drive() has something to do. */
int
http_mux_fd(const HttpMux *mux)
{
	return mux->epoll_fd;
}

/* Milliseconds until http_mux_drive() is due although nothing arrived; -1: no limit. */
long
http_mux_timeout_ms(const HttpMux *mux)
{
	int64 now;

	if (mux->due_ms < 0)
		return -1;
	now = http_mux_clock_ms();
	return mux->due_ms > now ? (long) (mux->due_ms - now) : 0;
}

/*
 * Move all transfers on as far as they go without waiting. NULL, or what libcurl
 * says if it no longer serves the transfers. Signals are blocked meanwhile, so that
 * the threads that libcurl starts to resolve names never run our handlers.
 */
const char *
http_mux_drive(HttpMux *mux)
{
	struct epoll_event events[MAX_EVENTS];
	sigset_t all;
	sigset_t before;
	int n;
	int running;
	CURLMcode code = CURLM_OK;

	Assert(!IsTransactionState());
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	n = epoll_wait(mux->epoll_fd, events, MAX_EVENTS, 0);
	for (int i = 0; i < n && code == CURLM_OK; i++)
	{
		int what = 0;

		if (events[i].events & EPOLLIN)
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & (EPOLLERR | EPOLLHUP))
			what |= CURL_CSELECT_ERR;
		code = curl_multi_socket_action(mux->multi, events[i].data.fd, what, &running);
	}
	if (code == CURLM_OK && mux->due_ms >= 0 && mux->due_ms <= http_mux_clock_ms())
	{
		mux->due_ms = -1;
		code = curl_multi_socket_action(mux->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code == CURLM_OK ? NULL : curl_multi_strerror(code);
}

/* Begin a transfer; it moves with the next drive. NULL, or why libcurl refuses it. */
const char *
http_mux_add(HttpMux *mux, CURL *easy)
{
	CURLMcode code;

	Assert(!IsTransactionState());
	code = curl_multi_add_handle(mux->multi, easy);
	return code == CURLM_OK ? NULL : curl_multi_strerror(code);
}

/* Take a transfer out, done or not. */
void
http_mux_remove(HttpMux *mux, CURL *easy)
{
	Assert(!IsTransactionState());
	(void) curl_multi_remove_handle(mux->multi, easy);
}

/* A transfer that ended, and how; NULL if there is none. It must be removed before the next call. */
CURL *
http_mux_next_done(HttpMux *mux, CURLcode *code)
{
	CURLMsg *message;
	int left;

	Assert(!IsTransactionState());
	while ((message = curl_multi_info_read(mux->multi, &left)) != NULL)
	{
		if (message->msg == CURLMSG_DONE)
		{
			*code = message->data.result;
			return message->easy_handle;
		}
	}
	return NULL;
}
