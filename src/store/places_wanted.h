/*
 * store/places_wanted.h
 *	  The alert of tenants whose tasks wait for places for their shapes.
 */
#ifndef GPU_ORCH_STORE_PLACES_WANTED_H
#define GPU_ORCH_STORE_PLACES_WANTED_H

#include "datatype/timestamp.h"

extern void store_places_wanted_watch(TimestampTz now);

#endif
