/*
 * test_place.c
 *	  Which offer a create goes to.
 */
#include "decide/place.h"
#include "unit.h"

static void
place_is(const char *what, PlaceMode mode, int64_t max_price, const PlaceOffer *offers,
		 int n_offers, int wants, const char *wants_reason)
{
	PlaceInput input = { mode, max_price, offers, n_offers };
	const char *reason = NULL;
	int got = plan_place(&input, &reason);

	ok(got == wants && same(reason, wants_reason), "place: %s (%d, %s)", what, got, reason);
}

void
test_place(void)
{
	const char *first = "first offer available in order of preference";
	const char *cheapest = "cheapest offer available";
	const PlaceOffer three[] = { { 2, 300, true, 0, NULL },
								 { 1, 500, true, 4, NULL },
								 { 3, 200, true, 0, NULL } };
	const PlaceOffer busy[] = { { 1, 300, false, 2, NULL },
								{ 2, 500, true, 0, NULL },
								{ 3, -1, true, 0, NULL } };
	const PlaceOffer none[] = { { 1, 300, false, 2, NULL }, { 2, 500, false, 0, NULL } };
	const PlaceOffer tie[] = { { 1, 300, true, 3, NULL },
							   { 3, 300, true, 1, NULL },
							   { 2, 300, true, 1, NULL } };
	const PlaceOffer broke[] = { { 1, 900, true, 0, "too much" },
								 { 2, 300, false, 1, NULL },
								 { 3, 400, true, 0, NULL } };
	const PlaceOffer unknown[] = { { 1, -1, true, 0, NULL }, { 2, 900, true, 0, NULL } };

	place_is("preference goes by ordinal, not by place or price", PLACE_PREFERENCE, -1, three, 3, 1,
			 first);
	place_is("cheapest goes by price", PLACE_CHEAPEST, -1, three, 3, 2, cheapest);
	place_is("a price limit rules out the first choice", PLACE_PREFERENCE, 300, three, 3, 0, first);
	place_is("what backs off is passed over", PLACE_PREFERENCE, -1, busy, 3, 1, first);
	place_is("an unknown price comes last", PLACE_CHEAPEST, -1, busy, 3, 1, cheapest);
	place_is("fewer failures, then the ordinal, break a tie of price", PLACE_CHEAPEST, -1, tie, 3,
			 2, cheapest);
	place_is("an unknown price will do without a limit", PLACE_PREFERENCE, -1, unknown, 2, 0,
			 first);
	place_is("and not with one", PLACE_PREFERENCE, 1000, unknown, 2, 1, first);
	place_is("all back off", PLACE_PREFERENCE, -1, none, 2, -1,
			 "every offer that price limit and budgets allow backs off");
	place_is("all too dear", PLACE_PREFERENCE, 100, three, 3, -1,
			 "every offer is above the price limit");
	place_is("too dear or unknown", PLACE_PREFERENCE, 800, unknown, 2, -1,
			 "no offer is known to be within the price limit");
	place_is("what a budget refuses is passed over", PLACE_PREFERENCE, -1, broke, 3, 2, first);
	place_is("the budget's refusal is the reason where nothing else is left", PLACE_PREFERENCE, -1,
			 broke, 1, -1, "too much");
	place_is("but not while what it allows backs off", PLACE_PREFERENCE, -1, broke, 2, -1,
			 "every offer that price limit and budgets allow backs off");
	place_is("nor beyond the price limit", PLACE_PREFERENCE, 800, broke, 1, -1,
			 "every offer is above the price limit");
	place_is("a limit of nothing", PLACE_CHEAPEST, 0, none, 2, -1,
			 "every offer is above the price limit");
	place_is("no offers", PLACE_PREFERENCE, -1, three, 0, -1, "the pool has no offers");
}
