/*
 * decide/place.h
 *	  Which offer the next create goes to. Pure.
 */
#ifndef GPU_ORCH_PLAN_PLACE_H
#define GPU_ORCH_PLAN_PLACE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum PlaceMode
{
	PLACE_PREFERENCE, /* the pool's own order */
	PLACE_CHEAPEST	  /* the least price; what is unknown comes last */
} PlaceMode;

typedef struct PlaceOffer
{
	int ordinal;		  /* place in the pool's order of preference */
	int64_t price_micros; /* of a whole pod, millionths of a dollar per hour; -1 unknown */
	bool available;		  /* not backing off now */
	int failures;		  /* refusals in a row */
	const char *refusal;  /* what a pod at its price would break; NULL nothing */
} PlaceOffer;

typedef struct PlaceInput
{
	PlaceMode mode;
	int64_t max_price_micros; /* what the pool may pay for a pod and hour; -1 no limit */
	const PlaceOffer *offers;
	int n_offers;
} PlaceInput;

extern int plan_place(const PlaceInput *input, const char **reason);

#endif
