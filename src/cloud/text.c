/*
 * cloud/text.c
 *	  What a provider says, made fit to be shown and stored: one short line in the
 *	  database's encoding, without the key and the values of a pod's environment,
 *	  which providers echo in their errors.
 *
 * Must know no provider.
 */
#include "postgres.h"

#include "cloud/text.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

/* So many bytes of a secret in a row are blanked out; a shorter one counts as a whole. */
#define SECRET_WINDOW 8
/* What is shorter is no secret: blanking out each "1" would leave no message. */
#define SECRET_MIN 4

/* Mark in hidden[] each stretch of the text that also stands in the secret. */
static void
hide_secret(const char *text, size_t len, const char *secret, bool *hidden)
{
	size_t secret_len = strlen(secret);
	size_t window = Min(secret_len, SECRET_WINDOW);

	if (secret_len < SECRET_MIN)
		return;
	for (size_t i = 0; i + window <= len; i++)
	{
		if (memmem(secret, secret_len, text + i, window) != NULL)
			memset(hidden + i, true, window);
	}
}

/* In a text that is not valid in the database's encoding, replace all but ASCII. */
static void
make_valid(char *text)
{
	if (pg_verifymbstr(text, (int) strlen(text), true))
		return;
	for (char *c = text; *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	}
}

/*
 * The text as one line of at most CLOUD_TEXT_MAX_BYTES, valid in the database's
 * encoding, "***" instead of the key and the secrets and of pieces of them. Palloc'd;
 * what was copied on the way is overwritten.
 */
char *
cloud_text_clean(const char *text, const char *key, char *const *secrets, int n_secrets)
{
	char *copy = pnstrdup(text, 4 * CLOUD_TEXT_MAX_BYTES);
	size_t len = strlen(copy);
	bool *hidden = palloc0(len + 1);
	StringInfoData out;

	hide_secret(copy, len, key, hidden);
	for (int i = 0; i < n_secrets; i++)
		hide_secret(copy, len, secrets[i], hidden);
	initStringInfo(&out);
	for (size_t i = 0; i < len; i++)
	{
		if (hidden[i])
			appendStringInfoString(&out, i == 0 || !hidden[i - 1] ? "***" : "");
		else if ((unsigned char) copy[i] < ' ' || copy[i] == 0x7f)
			appendStringInfoChar(&out, ' ');
		else
			appendStringInfoChar(&out, copy[i]);
	}
	explicit_bzero(copy, len);
	pfree(copy);
	pfree(hidden);
	make_valid(out.data);
	out.data[pg_mbcliplen(out.data, out.len, CLOUD_TEXT_MAX_BYTES)] = '\0';
	return out.data;
}
