/*
 * listen.c WORKERS ROUNDS: from the commit of a submit to the return of the claim that takes
 * it, with WORKERS listening.
 *
 * Connects by libpq's environment. Each worker has a connection of its own that listens on
 * gpu_orch_tasks and claims when it is told; the tokens are those of the fleet "listen" in
 * bench.worker. Prints the median and the 99th percentile.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void
fail(const char *what, PGconn *conn)
{
	fprintf(stderr, "%s: %s", what, PQerrorMessage(conn));
	exit(1);
}

static PGresult *
ask(PGconn *conn, const char *query, int n, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, query, n, NULL, values, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(query, conn);
	return result;
}

static PGconn *
connect_or_fail(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		fail("connecting", conn);
	return conn;
}

static int
by_size(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	int			workers = argc > 1 ? atoi(argv[1]) : 100;
	int			rounds = argc > 2 ? atoi(argv[2]) : 100;
	PGconn	   *submitter = connect_or_fail();
	PGconn	  **conns = calloc(workers, sizeof(PGconn *));
	struct pollfd *polls = calloc(workers, sizeof(struct pollfd));
	double	   *took = calloc(rounds, sizeof(double));
	PGresult   *fleet = ask(submitter,
							"SELECT worker_id, token FROM bench.worker WHERE fleet = 'listen' ORDER BY n",
							0, NULL);

	for (int i = 0; i < workers; i++)
	{
		conns[i] = connect_or_fail();
		PQclear(ask(conns[i], "LISTEN gpu_orch_tasks", 0, NULL));
		polls[i].fd = PQsocket(conns[i]);
		polls[i].events = POLLIN;
	}
	for (int round = 0; round < rounds; round++)
	{
		double		start;
		int			claimed = 0;

		PQclear(ask(submitter, "SELECT gpu_orch.submit_task('listen')", 0, NULL));
		start = now_ms();
		while (!claimed)
		{
			if (poll(polls, workers, 10000) <= 0)
			{
				fprintf(stderr, "nobody was told within ten seconds\n");
				return 1;
			}
			for (int i = 0; i < workers; i++)
			{
				const char *identity[2] = {PQgetvalue(fleet, i, 0), PQgetvalue(fleet, i, 1)};
				PGnotify   *notify;
				PGresult   *task;
				int			told = 0;

				if (polls[i].revents == 0)
					continue;
				PQconsumeInput(conns[i]);
				while ((notify = PQnotifies(conns[i])) != NULL)
				{
					told = 1;
					PQfreemem(notify);
				}
				if (!told)
					continue;
				task = ask(conns[i], "SELECT task_id, lease FROM gpu_orch.claim_tasks($1, $2)", 2,
						   identity);
				if (PQntuples(task) == 1)
				{
					const char *end[4] = {identity[0], identity[1], PQgetvalue(task, 0, 0),
					PQgetvalue(task, 0, 1)};

					took[round] = now_ms() - start;
					claimed = 1;
					PQclear(ask(conns[i], "SELECT gpu_orch.complete_task($1, $2, $3, $4)", 4, end));
				}
				PQclear(task);
			}
		}
		usleep(20000);
	}
	qsort(took, rounds, sizeof(double), by_size);
	printf("p50 %.1f ms, p99 %.1f ms\n", took[rounds / 2], took[rounds * 99 / 100]);
	return 0;
}
