/*
 * cloud/text.h
 *	  What a provider says, made fit to be shown and stored.
 */
#ifndef GPU_ORCH_CLOUD_TEXT_H
#define GPU_ORCH_CLOUD_TEXT_H

#define CLOUD_TEXT_MAX_BYTES 500

extern char *cloud_text_clean(const char *text, const char *key, char *const *secrets,
							  int n_secrets);

#endif
