/*
 * store/secret.h
 *	  The secret of an installation, and the tokens that follow from it.
 */
#ifndef GPU_ORCH_STORE_SECRET_H
#define GPU_ORCH_STORE_SECRET_H

#include "base/token.h"

extern void store_secret_make(void);
extern void store_secret_token(const char *nonce, char token[TOKEN_LENGTH + 1]);

#endif
