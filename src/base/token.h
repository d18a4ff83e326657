/*
 * base/token.h
 *	  Tokens by which workers are known.
 */
#ifndef GPU_ORCH_TOKEN_H
#define GPU_ORCH_TOKEN_H

#include "common/sha2.h"

/* A token as it is handed out: 256 random bits in hex. */
#define TOKEN_LENGTH 64

extern void token_make(char token[TOKEN_LENGTH + 1]);
extern void token_digest(const char *token, uint8 digest[PG_SHA256_DIGEST_LENGTH]);
extern bool token_equal(const char *token, const uint8 digest[PG_SHA256_DIGEST_LENGTH]);

#endif
