/*
 * sweep_list.c
 *	  The account's pods, whole or not at all.
 *
 * A list is complete when every page arrived, could be read, and said where it goes on; one pod without
 * a valid id or name makes it unreadable. Of foreign pods nothing is kept but their number. Must not
 * decide what a list means for a pod.
 */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decide/pod_name.h"
#include "sweep.h"

#define FIRST_PAGE "/pods?limit=1000"
#define MAX_PAGES 100
#define MAX_CURSOR_BYTES 2048

/* Copy a text, cut where the room ends; what is not printable ASCII becomes '?'. */
static void
copy_text(char *to, size_t room, const char *text)
{
	size_t i;

	for (i = 0; text != NULL && text[i] != '\0' && i + 1 < room; i++)
		to[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	to[i] = '\0';
}

/* A string in a JSON object; NULL if it is absent or something else. */
static const char *
string_at(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* May this stand in a path, and is it of the form that the provider's ids have? */
static bool
is_pod_id(const char *id)
{
	size_t len = strlen(id);

	return len >= 1 && len <= MAX_ID_BYTES &&
		strspn(id,
			   "0123456789-_"
			   "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == len;
}

/* The time in a text such as 2026-11-21T08:00:00.123Z; 0 if it is not of this form. */
static time_t
read_time(const char *text)
{
	struct tm parts = { 0 };
	const char *rest = text != NULL ? strptime(text, "%Y-%m-%dT%H:%M:%S", &parts) : NULL;

	return rest != NULL && rest[strcspn(rest, "Z")] == 'Z' ? timegm(&parts) : 0;
}

/* Read what is shown of a pod of ours; nothing of it is needed. */
static void
read_details(const json_t *json, Pod *pod)
{
	const json_t *gpu = json_object_get(json, "gpu");
	const char *type = string_at(gpu, "id");
	json_int_t count = json_integer_value(json_object_get(gpu, "count"));
	double price = json_number_value(json_object_get(json, "cost"));
	char text[sizeof(pod->gpu)];

	copy_text(pod->name, sizeof(pod->name), string_at(json, "name"));
	copy_text(pod->status, sizeof(pod->status), string_at(json, "status"));
	snprintf(text, sizeof(text), "%d x %s", count > 0 && count <= 1024 ? (int) count : 0,
			 type != NULL ? type : "?");
	copy_text(pod->gpu, sizeof(pod->gpu), text);
	pod->price = price > 0 && price < 1e6 ? price : 0;
	pod->created_at = read_time(string_at(json, "createdAt"));
}

/* Read a pod; NULL or why it makes its list unreadable. */
static const char *
read_pod(const json_t *json, const char *installation, Pod *pod)
{
	const char *id = string_at(json, "id");
	const char *name = string_at(json, "name");

	memset(pod, 0, sizeof(*pod));
	if (id == NULL || !is_pod_id(id))
		return "a pod has no valid id";
	if (name == NULL)
		return "a pod has no name";
	copy_text(pod->id, sizeof(pod->id), id);
	pod->ours = pod_name_is_of(
		name, string_at(json_object_get(json, "env"), "GPU_ORCH_INSTALLATION"), installation);
	if (pod->ours)
		read_details(json, pod);
	return NULL;
}

/*
 * Find out whether a list goes on, and with which cursor (NULL: it ends here); NULL or what is wrong.
 * Servers of before paging send no pagination at all.
 */
static const char *
read_pagination(const json_t *page, const char **cursor)
{
	const json_t *pagination = json_object_get(page, "pagination");
	const json_t *more = json_object_get(pagination, "hasNextPage");

	*cursor = string_at(pagination, "nextCursor");
	if (pagination != NULL && !json_is_null(pagination) && !json_is_object(pagination))
		return "its pagination is not an object";
	if (json_is_boolean(more) ? json_is_false(more) : *cursor == NULL)
		*cursor = NULL;
	else if (*cursor == NULL || **cursor == '\0' || strlen(*cursor) > MAX_CURSOR_BYTES)
		return "it announces a page without a usable cursor";
	return NULL;
}

/* Add the pods of a page to a list, and find out where it goes on; NULL or what is wrong. */
static const char *
read_page(const json_t *page, const char *installation, PodList *list, const char **cursor)
{
	const json_t *pods = json_object_get(page, "pods");
	size_t n = json_array_size(pods);

	if (!json_is_array(pods))
		return "it has no array of pods";
	list->pods = xrealloc(list->pods, (list->n + n + 1) * sizeof(Pod));
	for (size_t i = 0; i < n; i++)
	{
		const char *problem = read_pod(json_array_get(pods, i), installation, &list->pods[list->n]);

		if (problem != NULL)
			return problem;
		list->n++;
	}
	return read_pagination(page, cursor);
}

/* Order by id. */
static int
compare_ids(const void *a, const void *b)
{
	return strcmp(((const Pod *) a)->id, ((const Pod *) b)->id);
}

/* Keep each pod once, as one may move to another page meanwhile; count the foreign ones and drop them. */
static void
finish(PodList *list)
{
	char last[MAX_ID_BYTES + 1] = "";
	int kept = 0;

	qsort(list->pods, list->n, sizeof(Pod), compare_ids);
	for (int i = 0; i < list->n; i++)
	{
		const Pod pod = list->pods[i];

		if (strcmp(pod.id, last) == 0)
			continue;
		memcpy(last, pod.id, sizeof(last));
		if (pod.ours)
			list->pods[kept++] = pod;
		else
			list->n_foreign++;
	}
	list->n = kept;
}

/* Say why a list failed, and when the next one may be asked for. */
static ListOutcome
failed(const HttpAnswer *answer, const char *problem)
{
	bool refused = answer->status == 401 || answer->status == 403 || answer->status == 404;

	fprintf(stderr, PROGRAM_NAME ": the list of pods cannot be read: ");
	if (answer->status == 0)
		fprintf(stderr, "%s", answer->error);
	else
		fprintf(stderr, "HTTP %d%s%s", answer->status, problem != NULL ? ", " : "",
				problem != NULL ? problem : "");
	if (refused)
		fprintf(stderr, "%s\n", answer->status == 401 ? "; is the key right?" : "");
	else
		fprintf(stderr, "; may be tried again in %.0f s\n", http_pause_left());
	return refused ? LIST_REFUSED : LIST_FAILED;
}

/*
 * Ask for one page and add it to a list. *path is what to ask for, and becomes what to ask for next,
 * or NULL after the last page.
 */
static ListOutcome
next_page(const char *installation, PodList *list, char **path)
{
	const char *problem = "it is not JSON";
	const char *cursor = NULL;
	HttpAnswer answer;
	json_t *page;

	if (!http_request("GET", *path, &answer))
		return LIST_TIME_OVER;
	if (answer.status < 200 || answer.status > 299)
		return failed(&answer, NULL);
	page = json_loadb(answer.body, answer.body_len, 0, NULL);
	if (page != NULL)
		problem = read_page(page, installation, list, &cursor);
	free(*path);
	*path = NULL;
	if (problem == NULL && cursor != NULL)
		*path = http_query(FIRST_PAGE "&cursor=", cursor);
	json_decref(page);
	if (problem == NULL)
		return LIST_READ;
	http_failed();
	return failed(&answer, problem);
}

/* Read the complete list of the account's pods. Only after LIST_READ is there a list to be freed. */
ListOutcome
list_read(const char *installation, PodList *list)
{
	ListOutcome outcome = LIST_READ;
	char *path = format_text(FIRST_PAGE);
	int pages = 0;

	memset(list, 0, sizeof(*list));
	while (outcome == LIST_READ && path != NULL && pages++ < MAX_PAGES)
		outcome = next_page(installation, list, &path);
	if (outcome == LIST_READ && path != NULL)
	{
		fprintf(stderr, PROGRAM_NAME ": the list of pods has more than %d pages\n", MAX_PAGES);
		outcome = LIST_REFUSED;
	}
	free(path);
	if (outcome == LIST_READ)
		finish(list);
	else
		list_free(list);
	return outcome;
}

/* Free what a list holds. */
void
list_free(PodList *list)
{
	free(list->pods);
	memset(list, 0, sizeof(*list));
}

/* Do two lists show the same pods of ours? */
bool
list_same(const PodList *a, const PodList *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		if (strcmp(a->pods[i].id, b->pods[i].id) != 0)
			return false;
	}
	return true;
}
