/*
 * sweep_rounds.c
 *	  Look, end, look again: what is believed, and what is done about it.
 *
 * Nothing is believed on one list: pods are there, or gone, when two complete lists some seconds apart
 * agree. The answer to a delete proves nothing (a pod may live on behind a 204, and 404 also means "not
 * yours to see"), so a pod that is still listed is asked to end again. Must touch no pod but those that
 * a complete list showed as ours.
 */
#include <stdio.h>
#include <string.h>

#include "sweep.h"

/* Two lists that agree must be so many seconds apart. */
#define OBSERVATION_GAP 5

/* A time span in its two largest units; "?" if it is not known since when. */
static const char *
age_of(time_t created_at, char *text, size_t size)
{
	long age = (long) (time(NULL) - created_at);

	age = age > 0 ? age : 0;
	if (created_at == 0)
		snprintf(text, size, "?");
	else if (age >= 86400)
		snprintf(text, size, "%ldd%02ldh", age / 86400, age / 3600 % 24);
	else if (age >= 3600)
		snprintf(text, size, "%ldh%02ldm", age / 3600, age / 60 % 60);
	else
		snprintf(text, size, "%ldm%02lds", age / 60, age % 60);
	return text;
}

/* Print what two lists agreed on. */
static void
show(const PodList *list)
{
	double total = 0;
	int unknown = 0;

	for (int i = 0; i < list->n; i++)
	{
		const Pod *pod = &list->pods[i];
		char price[16] = "?";
		char age[32];

		if (pod->price > 0)
			snprintf(price, sizeof(price), "%.4f", pod->price);
		printf("%-16s %-42s %-12s %-30s %9s $/h %8s\n", pod->id, pod->name, pod->status, pod->gpu,
			   price, age_of(pod->created_at, age, sizeof(age)));
		total += pod->price;
		unknown += pod->price == 0;
	}
	printf("pods of this installation: %d, %.4f $/h", list->n, total);
	if (unknown > 0)
		printf(" and %d of unknown price", unknown);
	printf("; of others, not touched: %d\n", list->n_foreign);
	if (list->n + list->n_foreign == 0)
		printf("The account shows no pod at all: is it the key of the right account?\n");
}

/* Send one delete for each pod of a list, as far as the time allowed goes. */
static void
end_pods(const PodList *list)
{
	for (int i = 0; i < list->n; i++)
	{
		char path[sizeof("/pods/") + MAX_ID_BYTES];
		HttpAnswer answer;

		snprintf(path, sizeof(path), "/pods/%s", list->pods[i].id);
		if (!http_request("DELETE", path, &answer))
			return;
		if (answer.status != 0)
			printf("%s: delete answered with HTTP %d\n", list->pods[i].id, answer.status);
		else
			printf("%s: delete not answered: %s\n", list->pods[i].id, answer.error);
	}
}

/* What was seen so far. */
typedef struct Rounds
{
	PodList last;  /* the last complete list */
	int n_lists;   /* complete ones */
	bool agreed;   /* the last one with the one before */
	bool readable; /* the last try to read a list succeeded */
} Rounds;

/* Read lists until one is complete; false if none can be had. */
static bool
look(Rounds *rounds, const char *installation)
{
	PodList list;
	ListOutcome outcome;

	while ((outcome = list_read(installation, &list)) == LIST_FAILED)
		rounds->readable = false;
	if (outcome == LIST_REFUSED)
		rounds->readable = false;
	if (outcome != LIST_READ)
		return false;
	rounds->readable = true;
	rounds->agreed = rounds->n_lists++ > 0 && list_same(&rounds->last, &list);
	list_free(&rounds->last);
	rounds->last = list;
	return true;
}

/* The end without success: name what the last complete list showed; the exit status. */
static int
give_up(const Rounds *rounds, bool end_them)
{
	fprintf(stderr, PROGRAM_NAME ": giving up: %s\n",
			rounds->readable ? "the time allowed (--wait) is over" : "the provider cannot be read");
	for (int i = 0; end_them && i < rounds->last.n; i++)
		fprintf(stderr, PROGRAM_NAME ": not proved gone: %s %s\n", rounds->last.pods[i].id,
				rounds->last.pods[i].name);
	return end_them && rounds->readable && rounds->last.n > 0 ? EXIT_LEFT : EXIT_UNREAD;
}

/*
 * Show the installation's pods and, if that is asked for, end them until two lists show none. Returns
 * the exit status.
 */
int
rounds_run(const char *installation, bool end_them)
{
	Rounds rounds = { 0 };
	bool shown = false;
	int status = -1;

	while (status < 0)
	{
		if (!look(&rounds, installation))
			status = give_up(&rounds, end_them);
		else if (rounds.agreed)
		{
			if (!shown || rounds.last.n == 0)
				show(&rounds.last);
			shown = true;
			if (rounds.last.n == 0 || !end_them)
				status = EXIT_GONE;
			else
				end_pods(&rounds.last);
		}
		http_pause(OBSERVATION_GAP);
	}
	list_free(&rounds.last);
	return status;
}
