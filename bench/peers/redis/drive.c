/*
 * drive SOCKET BACKLOG CLIENTS SECONDS: fills a Redis server with tasks and drives claim and complete
 * as two calls on each of CLIENTS connections; prints the rate and the latency of the pair.
 *
 * One thread waits on all connections, each of which has one call under way, so what is measured is the
 * server. It must not pipeline the two calls of a task: a worker learns the task before it completes it.
 */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Adds ARGV[1] tasks. A task of higher priority, then an older one, comes first in the set. */
static const char enqueue_script[] =
	"for n = 1, tonumber(ARGV[1]) do"
	"	local id = redis.call('INCR', 'last_task')"
	"	local priority = 0"
	"	redis.call('HSET', 'task:' .. id, 'requirements', '{}', 'payload', '{\"seed\": ' .. n .. ', \"prompt\": \"a cat\"}')"
	"	redis.call('ZADD', 'ready', id - priority * 1e12, id)"
	"end";

/* Takes the first task whose requirements ARGV[1], the capabilities, meet; ARGV[2] is when its lease ends. */
static const char claim_script[] =
	"local capabilities = cjson.decode(ARGV[1])"
	"local function meets(requirements)"
	"	for key, value in pairs(requirements) do"
	"		if capabilities[key] ~= value then return false end"
	"	end"
	"	return true"
	" end"
	" local from, ids = 0"
	" repeat"
	"	ids = redis.call('ZRANGE', 'ready', from, from + 19)"
	"	for _, id in ipairs(ids) do"
	"		local key = 'task:' .. id"
	"		local task = redis.call('HMGET', key, 'requirements', 'payload')"
	"		if meets(cjson.decode(task[1])) then"
	"			local token = redis.call('INCR', 'last_token')"
	"			redis.call('ZREM', 'ready', id)"
	"			redis.call('ZADD', 'leased', ARGV[2], id)"
	"			redis.call('HSET', key, 'token', token)"
	"			return {id, token, task[2]}"
	"		end"
	"	end"
	"	from = from + 20"
	" until #ids < 20 "
	"return false";

/* Ends the task ARGV[1] if ARGV[2] is the token of its lease; returns how many it ended. */
static const char complete_script[] =
	"local key = 'task:' .. ARGV[1]"
	" if redis.call('HGET', key, 'token') ~= ARGV[2] then return 0 end"
	" redis.call('ZREM', 'leased', ARGV[1])"
	" redis.call('DEL', key)"
	" redis.call('INCR', 'done')"
	" return 1";

typedef enum Step
{
	CLAIMING,
	COMPLETING,
	ENQUEUEING
} Step;

typedef struct Client
{
	redisContext *connection;
	Step		step;			/* the call that is under way */
	double		since;			/* when the claim was sent */
} Client;

static char enqueue_sha[64];
static char claim_sha[64];
static char complete_sha[64];

/* Leaves the program with a message. */
static void
fail(const char *what, const char *detail)
{
	fprintf(stderr, "%s: %s\n", what, detail);
	exit(1);
}

/* Seconds of the monotonic clock. */
static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Gives up on a reply that reports an error, or that did not come; frees nothing. */
static void
check(const redisContext *connection, const redisReply *reply)
{
	if (reply == NULL)
		fail("connection", connection->errstr);
	if (reply->type == REDIS_REPLY_ERROR)
		fail("reply", reply->str);
}

/* A connection to the server's socket; the caller owns it. */
static redisContext *
open_connection(const char *path)
{
	redisContext *connection = redisConnectUnix(path);

	if (connection == NULL || connection->err)
		fail("connect", connection ? connection->errstr : "out of memory");
	return connection;
}

/* Loads a script and writes its digest to sha. */
static void
load(redisContext *connection, const char *script, char *sha)
{
	redisReply *reply = redisCommand(connection, "SCRIPT LOAD %s", script);

	check(connection, reply);
	snprintf(sha, 64, "%s", reply->str);
	freeReplyObject(reply);
}

/* Adds tasks, and waits until they are there. */
static void
fill(redisContext *connection, long tasks)
{
	while (tasks > 0)
	{
		long		some = tasks < 5000 ? tasks : 5000;
		redisReply *reply = redisCommand(connection, "EVALSHA %s 0 %ld", enqueue_sha, some);

		check(connection, reply);
		freeReplyObject(reply);
		tasks -= some;
	}
}

/* Sends what redisAppendCommand has put aside. */
static void
flush(Client *client)
{
	int			done = 0;

	while (!done)
		if (redisBufferWrite(client->connection, &done) != REDIS_OK)
			fail("write", client->connection->errstr);
}

/* Sends the next claim of a client, as a worker with some capabilities and a lease of a minute. */
static void
send_claim(Client *client)
{
	client->step = CLAIMING;
	client->since = now();
	redisAppendCommand(client->connection, "EVALSHA %s 0 %s %ld", claim_sha,
					   "{\"gpu\": \"h100\", \"region\": \"eu\"}", (long) time(NULL) + 60);
	flush(client);
}

/* Acts on the reply to the call under way and sends the next one; returns whether a task was completed. */
static bool
advance(Client *client, const redisReply *reply)
{
	bool		completed = false;

	check(client->connection, reply);
	switch (client->step)
	{
		case CLAIMING:
			if (reply->type != REDIS_REPLY_ARRAY)
			{
				send_claim(client);
				break;
			}
			client->step = COMPLETING;
			redisAppendCommand(client->connection, "EVALSHA %s 0 %s %lld", complete_sha,
							   reply->element[0]->str, reply->element[1]->integer);
			flush(client);
			break;
		case COMPLETING:
			if (reply->integer != 1)
				fail("complete", "the token was refused");
			completed = true;
			if (rand() % 500 == 0)
			{
				client->step = ENQUEUEING;
				redisAppendCommand(client->connection, "EVALSHA %s 0 500", enqueue_sha);
				flush(client);
				break;
			}
			send_claim(client);
			break;
		case ENQUEUEING:
			send_claim(client);
			break;
	}
	return completed;
}

/* Orders latencies, shortest first. */
static int
compare(const void *a, const void *b)
{
	float		x = *(const float *) a;
	float		y = *(const float *) b;

	return (x > y) - (x < y);
}

/* Loads, fills, and drives until the time is over. */
int
main(int argc, char **argv)
{
	int			clients;
	double		start;
	double		end;
	long		completed = 0;
	long		room = 1 << 20;
	float	   *latency = malloc(room * sizeof(float));
	Client	   *client;
	struct pollfd *wait;
	redisContext *connection;

	if (argc != 5)
		fail("usage", "drive SOCKET BACKLOG CLIENTS SECONDS");
	connection = open_connection(argv[1]);
	load(connection, enqueue_script, enqueue_sha);
	load(connection, claim_script, claim_sha);
	load(connection, complete_script, complete_sha);
	fill(connection, atol(argv[2]));

	clients = atoi(argv[3]);
	client = calloc(clients, sizeof(Client));
	wait = calloc(clients, sizeof(struct pollfd));
	for (int n = 0; n < clients; n++)
	{
		client[n].connection = open_connection(argv[1]);
		wait[n].fd = client[n].connection->fd;
		wait[n].events = POLLIN;
	}

	start = now();
	end = start + atof(argv[4]);
	for (int n = 0; n < clients; n++)
		send_claim(&client[n]);
	while (now() < end)
	{
		if (poll(wait, clients, 100) < 0)
			fail("poll", strerror(errno));
		for (int n = 0; n < clients; n++)
		{
			redisReply *reply = NULL;

			if (wait[n].revents == 0)
				continue;
			if (redisBufferRead(client[n].connection) != REDIS_OK ||
				redisGetReplyFromReader(client[n].connection, (void **) &reply) != REDIS_OK)
				fail("read", client[n].connection->errstr);
			if (reply == NULL)
				continue;
			if (client[n].step == COMPLETING)
			{
				if (completed == room)
				{
					room *= 2;
					latency = realloc(latency, room * sizeof(float));
				}
				latency[completed] = (now() - client[n].since) * 1000;
			}
			completed += advance(&client[n], reply);
			freeReplyObject(reply);
		}
	}
	end = now();

	qsort(latency, completed, sizeof(float), compare);
	printf("tasks_per_second %.0f p50_ms %.2f p99_ms %.2f\n", completed / (end - start),
		   completed ? latency[completed / 2] : 0, completed ? latency[completed * 99 / 100] : 0);
	return 0;
}
