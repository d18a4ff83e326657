/*
 * store/site.h
 *	  Where this copy of the database runs, and whether that is where it ran last.
 */
#ifndef GPU_ORCH_STORE_SITE_H
#define GPU_ORCH_STORE_SITE_H

#include "common/sha2.h"
#include "lib/stringinfo.h"

/* A digest in hex. */
#define SITE_DIGEST_LENGTH (2 * PG_SHA256_DIGEST_LENGTH)

/* The most tokens that a site token file may hold. */
#define MAX_SITES 64

/* What tells this copy from any other. */
typedef struct Incarnation
{
	char *system_identifier;
	Oid database;
	int32 timeline; /* 0: not recorded yet */
	char *site;		/* digest of this site's token; NULL: there is none */
	char *host;		/* digest of the machine and the data directory; NULL: not recorded */
} Incarnation;

/* The sites, as digests, that this one may take over from. */
typedef struct SiteList
{
	int n;
	char *digests[MAX_SITES];
} SiteList;

typedef enum SiteVerdict
{
	SITE_SAME,		 /* where it ran last */
	SITE_RECORD,	 /* as good as the same; what is recorded is to be renewed */
	SITE_TAKES_OVER, /* promoted at a site that may */
	SITE_DIFFERS	 /* a copy, for all we know */
} SiteVerdict;

extern void store_site_place(Incarnation *mine);
extern const char *store_site_read(Incarnation *mine, SiteList *others);
extern SiteVerdict store_site_compare(const Incarnation *was, const Incarnation *mine,
									  const SiteList *others, StringInfo difference);

#endif
