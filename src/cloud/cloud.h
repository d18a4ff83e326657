/*
 * cloud/cloud.h
 *	  A provider, as the leader sees it: calls that are started, answers that come
 *	  later, and what each answer proves.
 *
 * One folder cloud/<provider>/ implements this; only there are its field names known. No
 * function may run in a transaction, waits, or raises anything but out of memory.
 */
#ifndef GPU_ORCH_CLOUD_H
#define GPU_ORCH_CLOUD_H

#include "datatype/timestamp.h"

typedef enum CloudCall
{
	CLOUD_CREATE,
	CLOUD_GET,
	CLOUD_LIST,
	CLOUD_DELETE,
	CLOUD_CATALOG,
	CLOUD_ACCOUNT,
	CLOUD_BILLING
} CloudCall;

/* The last of them, for who counts. */
#define CLOUD_LAST_CALL CLOUD_BILLING

typedef enum CloudVerdict
{
	CLOUD_OK,	   /* the effect is proved */
	CLOUD_REFUSED, /* the provider reliably says that nothing happened */
	CLOUD_UNKNOWN, /* it may have happened; of reads: they failed */
	CLOUD_NOT_SENT /* nothing left this machine */
} CloudVerdict;

typedef enum CloudReason
{
	CR_NONE,
	CR_CAPACITY, /* nothing of that kind is to be had now */
	CR_INVALID,	 /* the request itself is wrong */
	CR_IMAGE,	 /* the image is not to be had */
	CR_AUTH,
	CR_FORBIDDEN,
	CR_BALANCE, /* the account lacks the money */
	CR_RATE,
	CR_NOT_FOUND, /* not there, or not ours to see */
	CR_CONFLICT,
	CR_SERVER,
	CR_NETWORK,
	CR_UNREADABLE
} CloudReason;

typedef struct CloudPod
{
	char *id;
	char *name;				/* "" if it has none */
	char *status;			/* the provider's word; "" if it sent none */
	int64 price_micros;		/* USD per hour for the whole pod, millionths; -1 unknown */
	int gpu_count;			/* -1 unknown */
	char *gpu_type;			/* NULL unknown */
	char *data_center;		/* NULL unknown */
	bool has_runtime;		/* the provider shows something running in it */
	int64 uptime;			/* seconds since its container started; -1 unknown */
	TimestampTz created_at; /* 0 unknown */
	char *env_installation; /* GPU_ORCH_INSTALLATION of its environment, NULL absent */
	char *env_op;			/* GPU_ORCH_OP of its environment, NULL absent */
	char *env_pool;			/* GPU_ORCH_POOL, NULL absent */
	char *env_worker;		/* GPU_ORCH_WORKER_ID, NULL absent */
} CloudPod;

/* What the catalog says of a GPU type, anywhere or in one data centre. */
typedef struct CloudOffer
{
	char *gpu_type;
	char *data_center;		   /* NULL: any */
	int64 price_secure_micros; /* of one GPU per hour; -1: not offered, or unknown */
	int64 price_community_micros;
	char *availability; /* the provider's word; NULL: it says nothing */
	int memory_gb;		/* of one GPU; 0 unknown */
} CloudOffer;

/* What the provider asks for a pod and an hour. */
typedef struct CloudBill
{
	char *pod_id;
	TimestampTz hour;	 /* its beginning */
	int64 amount_micros; /* dollars, in millionths */
} CloudBill;

typedef struct CloudEnv
{
	const char *name;
	const char *value;
} CloudEnv;

/* A pod to create. Strings that are NULL or empty are left out of the request. */
typedef struct CloudPodSpec
{
	const char *name;		/* required */
	const char *image;		/* required unless template_id is set */
	const char *gpu_type;	/* required */
	int gpu_count;			/* 1.. */
	const char *cloud_type; /* SECURE | COMMUNITY */
	const char *const *data_centers;
	int n_data_centers;
	int container_disk_gb; /* 0: omit */
	const char *volume_id;
	const char *volume_mount_path; /* required with volume_id */
	const char *args;
	const char *template_id;
	const char *registry_id;
	const char *min_cuda_version;
	const char *const *ports;
	int n_ports;
	const CloudEnv *env;
	int n_env;
} CloudPodSpec;

/*
 * How a call ended. Everything is palloc'd and belongs to the context that was
 * current when the answer was taken.
 */
typedef struct CloudAnswer
{
	int64 tag;
	CloudCall call;
	CloudVerdict verdict;
	CloudReason reason;
	int http_status;	  /* 0: none arrived */
	int64 retry_after_ms; /* the provider wants no call for so long; -1 does not say */
	char *message;		  /* one line, <= 500 bytes, without key and env values; NULL if OK */
	CloudPod *pods;		  /* CREATE, GET: the pod; LIST: all pods of the account; if OK */
	int n_pods;
	bool complete;		/* LIST: every page arrived */
	CloudOffer *offers; /* CATALOG, if OK */
	int n_offers;
	char *account;		  /* ACCOUNT, if OK: whose the key is */
	int64 balance_micros; /* ACCOUNT: dollars left, in millionths; -1 it does not say */
	int64 spend_micros;	  /* ACCOUNT: dollars an hour now, in millionths; -1 it does not say */
	CloudBill *bills;	  /* BILLING, if OK: of all pods of the account */
	int n_bills;
	TimestampTz provider_time; /* the answer's own date; 0 unknown */
} CloudAnswer;

typedef struct CloudSession CloudSession;

extern CloudSession *cloud_open(const char *api_url, const char *key, const char *ca_file,
								int connect_timeout_ms, int timeout_ms, char **error);
extern void cloud_set_key(CloudSession *session, const char *key);
extern bool cloud_try_key(CloudSession *session, int64 tag, const char *key, char **error);
extern void cloud_close(CloudSession *session);
extern const char *cloud_warning(void);

extern int cloud_fd(CloudSession *session);
extern long cloud_timeout_ms(CloudSession *session);
extern void cloud_drive(CloudSession *session);
extern int cloud_in_flight(CloudSession *session);

extern bool cloud_start_create(CloudSession *session, int64 tag, const CloudPodSpec *spec,
							   char **error);
extern bool cloud_start_get(CloudSession *session, int64 tag, const char *pod_id, char **error);
extern bool cloud_start_delete(CloudSession *session, int64 tag, const char *pod_id, char **error);
extern bool cloud_start_list(CloudSession *session, int64 tag, char **error);
extern bool cloud_start_catalog(CloudSession *session, int64 tag, char **error);
extern bool cloud_start_account(CloudSession *session, int64 tag, char **error);
extern bool cloud_start_billing(CloudSession *session, int64 tag, TimestampTz from, char **error);
extern bool cloud_next_answer(CloudSession *session, CloudAnswer *answer);

#endif
