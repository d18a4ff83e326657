/*
 * base/token.c
 *	  Tokens by which workers are known: made, turned into digests, and compared.
 *
 * Only digests are ever stored. Nothing here says whose a token is.
 */
#include "postgres.h"

#include "base/token.h"
#include "common/cryptohash.h"
#include "utils/builtins.h"

/* Make a token from 256 random bits. */
void
token_make(char token[TOKEN_LENGTH + 1])
{
	uint8 bits[TOKEN_LENGTH / 2];

	if (!pg_strong_random(bits, sizeof(bits)))
		ereport(
			ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not obtain random bits for a token")));
	hex_encode((const char *) bits, sizeof(bits), token);
	token[TOKEN_LENGTH] = '\0';
}

/* The digest of a token, which is all that is ever stored of it. */
void
token_digest(const char *token, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL || pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) token, strlen(token)) < 0 ||
		pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute the digest of a token")));
	pg_cryptohash_free(context);
}

/*
 * The digest of a token that a session presents, computed anew only where it is not
 * the one it presented last: a worker's session presents the same one with each call.
 */
static const uint8 *
presented_digest(const char *token)
{
	static char last[TOKEN_LENGTH];
	static uint8 digest[PG_SHA256_DIGEST_LENGTH];
	static bool known = false;
	bool fits = strlen(token) == TOKEN_LENGTH;

	if (!known || !fits || timingsafe_bcmp(token, last, TOKEN_LENGTH) != 0)
	{
		known = false;
		token_digest(token, digest);
		if (fits)
			memcpy(last, token, TOKEN_LENGTH);
		known = fits;
	}
	return digest;
}

/* Compare a token with a digest, in a time that does not depend on where they differ. */
bool
token_equal(const char *token, const uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	return timingsafe_bcmp(presented_digest(token), digest, PG_SHA256_DIGEST_LENGTH) == 0;
}
