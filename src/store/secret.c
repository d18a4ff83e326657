/*
 * store/secret.c
 *	  The secret of an installation, and the tokens that follow from it: all access
 *	  to installation_secret.
 *
 * A pod's registration token is computed from the secret and the nonce in the
 * pod's name. So a database that was restored to before a create knows the token
 * of the pod all the same, and a pod that somebody else made under such a name
 * does not have it. The secret leaves the server in dumps alone.
 */
#include "postgres.h"

#include "common/hmac.h"
#include "db/spi_util.h"
#include "store/secret.h"
#include "utils/builtins.h"

#define SECRET_BYTES 32

/* Make the secret, from random bits, if there is none yet. */
void
store_secret_make(void)
{
	static SpiQuery query = {
		"INSERT INTO gpu_orch.installation_secret (secret) VALUES ($1) ON CONFLICT DO NOTHING"
	};
	bytea *secret = palloc(VARHDRSZ + SECRET_BYTES);
	SpiArgs args = SPI_ARGS_INIT;

	SET_VARSIZE(secret, VARHDRSZ + SECRET_BYTES);
	if (!pg_strong_random(VARDATA(secret), SECRET_BYTES))
		elog(ERROR, "gpu_orch: could not obtain random bits");
	spi_begin();
	spi_arg(&args, BYTEAOID, PointerGetDatum(secret), false);
	spi_run(&query, &args);
	spi_end();
	explicit_bzero(VARDATA(secret), SECRET_BYTES);
}

/* Compute the HMAC-SHA256 of a nonce under a secret. */
static void
sign(const bytea *secret, const char *nonce, uint8 signature[PG_SHA256_DIGEST_LENGTH])
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);

	if (context == NULL ||
		pg_hmac_init(context, (const uint8 *) VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret)) < 0 ||
		pg_hmac_update(context, (const uint8 *) nonce, strlen(nonce)) < 0 ||
		pg_hmac_final(context, signature, PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a registration token")));
	pg_hmac_free(context);
}

/* The registration token of the pod of this nonce. Raises an error where the secret is gone. */
void
store_secret_token(const char *nonce, char token[TOKEN_LENGTH + 1])
{
	static SpiQuery query = { "SELECT secret FROM gpu_orch.installation_secret WHERE one" };
	uint8 signature[PG_SHA256_DIGEST_LENGTH];
	bool isnull;

	StaticAssertStmt(2 * PG_SHA256_DIGEST_LENGTH == TOKEN_LENGTH, "a token is a digest in hex");
	spi_begin();
	spi_run_one(&query, NULL, "reading the installation's secret");
	sign(DatumGetByteaPP(spi_datum(0, 1, &isnull)), nonce, signature);
	spi_end();
	hex_encode((const char *) signature, sizeof(signature), token);
	token[TOKEN_LENGTH] = '\0';
	explicit_bzero(signature, sizeof(signature));
}
