/*
 * decide/place.c
 *	  Choose the offer for one create.
 *
 * Pure: no PostgreSQL header, no clock, no memory of its own. Whether there is to be a
 * create is decide/scale.c's affair, and what a budget allows the caller's. Here only the
 * pool's price limit, refusals, backoffs and the order among offers matter.
 */
#include <stddef.h>

#include "decide/place.h"

/* Does a come before b? Both may be used. */
static bool
better(PlaceMode mode, const PlaceOffer *a, const PlaceOffer *b)
{
	if (mode == PLACE_CHEAPEST && a->price_micros != b->price_micros)
	{
		if (a->price_micros < 0 || b->price_micros < 0)
			return a->price_micros >= 0;
		return a->price_micros < b->price_micros;
	}
	if (mode == PLACE_CHEAPEST && a->failures != b->failures)
		return a->failures < b->failures;
	return a->ordinal < b->ordinal;
}

/*
 * The index of the offer for one create, or -1 where none may be used; *reason, a
 * constant or an offer's own refusal, tells why. An offer whose price is unknown does not
 * pass a price limit.
 */
int
plan_place(const PlaceInput *input, const char **reason)
{
	int best = -1;
	const char *refusal = NULL;
	bool backing_off = false;
	bool price_unknown = false;

	for (int i = 0; i < input->n_offers; i++)
	{
		const PlaceOffer *offer = &input->offers[i];

		if (input->max_price_micros >= 0 && offer->price_micros < 0)
			price_unknown = true;
		else if (input->max_price_micros >= 0 && offer->price_micros > input->max_price_micros)
			continue;
		else if (offer->refusal != NULL)
			refusal = offer->refusal;
		else if (!offer->available)
			backing_off = true;
		else if (best < 0 || better(input->mode, offer, &input->offers[best]))
			best = i;
	}

	if (best >= 0)
		*reason = input->mode == PLACE_CHEAPEST ? "cheapest offer available" :
												  "first offer available in order of preference";
	else if (input->n_offers == 0)
		*reason = "the pool has no offers";
	else if (backing_off)
		*reason = "every offer that price limit and budgets allow backs off";
	else if (refusal != NULL)
		*reason = refusal;
	else if (price_unknown)
		*reason = "no offer is known to be within the price limit";
	else
		*reason = "every offer is above the price limit";
	return best;
}
