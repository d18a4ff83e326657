/*
 * cloud/runpod/runpod.h
 *	  What the two files about RunPod share: a call under way, and how its answer is read.
 */
#ifndef GPU_ORCH_CLOUD_RUNPOD_H
#define GPU_ORCH_CLOUD_RUNPOD_H

#include "cloud/cloud.h"
#include "base/json_read.h"
#include "lib/ilist.h"

/* A call whose answer was not taken yet. */
typedef struct RunpodCall
{
	dlist_node node;
	MemoryContext context;
	int64 tag;
	CloudCall call;
	char *expected; /* CREATE: the pod's name; GET: its id */
	char *key;		/* as it was at the start */
	char **secrets; /* CREATE: values of the environment */
	int n_secrets;
	CloudPod *pods; /* what was read so far */
	int n_pods;
	CloudOffer *offers;
	int n_offers;
	int n_pages;		  /* LIST: pages that arrived */
	char *cursor;		  /* LIST: the next page; NULL: none */
	char *account;		  /* ACCOUNT */
	int64 balance_micros; /* ACCOUNT */
	int64 spend_micros;	  /* ACCOUNT */
	CloudBill *bills;	  /* BILLING */
	int n_bills;
} RunpodCall;

/* Is a text given at all? */
static inline bool
text_given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

extern bool cloud_runpod_is_id(const char *id);
extern const char *cloud_runpod_read(RunpodCall *call, JsonbContainer *json);
extern char *cloud_runpod_problem(JsonbContainer *json);
extern void cloud_runpod_drop_doubles(RunpodCall *call);

#endif
