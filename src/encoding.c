/*-------------------------------------------------------------------------
 *
 * encoding.c
 *	  Text from the network in the database's encoding.
 *
 * An instant key exists once Seam has answered, so what the encoding cannot
 * hold must never become an error here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/string.h"
#include "encoding.h"
#include "mb/pg_wchar.h"

/*
 * A valid UTF-8 text in the database's encoding, palloc'd, or NULL when that
 * encoding cannot hold it.  SQL_ASCII takes the bytes as they are.
 *
 * Throws only when out of memory.  Outside a transaction, where the conversion
 * can't be looked up, only ASCII can be converted.
 */
char *
encoding_from_utf8(const char *utf8)
{
	int			len = (int) strlen(utf8);
	int			encoding = GetDatabaseEncoding();
	bool		same = encoding == PG_UTF8 || encoding == PG_SQL_ASCII;
	Oid			proc;
	size_t		size;
	char	   *converted;

	if (same || pg_is_ascii(utf8))
		return pstrdup(utf8);
	if (!IsTransactionState())
		return NULL;
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		return NULL;
	size = (size_t) len * MAX_CONVERSION_GROWTH + 1;
	converted = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
									  (unsigned char *) pstrdup(utf8), len,
									  (unsigned char *) converted, (int) size,
									  true) != len)
		return NULL;
	return converted;
}

/*
 * The length of the secret that the text begins with, or 0.  A URL is one, since it
 * may be a key's.
 */
static size_t
secret_at(const char *text, const char *const *secrets)
{
	if (strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0)
		return strcspn(text, " \t\r\n\"'<>");
	for (; *secrets; secrets++)
	{
		size_t		len = strlen(*secrets);

		if (len > 0 && strncmp(text, *secrets, len) == 0)
			return len;
	}
	return 0;
}

/*
 * Append a text that somebody else wrote (valid UTF-8) to a message: without
 * control characters, without URLs and the secrets (up to a NULL; empty ones do
 * not count), cut after max_chars, and with a question mark for what the encoding cannot hold.
 */
void
encoding_append_foreign(StringInfo buf, const char *utf8, int max_chars,
						const char *const *secrets)
{
	StringInfoData clean;
	char	   *converted;

	initStringInfo(&clean);
	for (const char *p = utf8; *p;)
	{
		int			len = pg_utf_mblen((const unsigned char *) p);
		size_t		secret_len = secret_at(p, secrets);

		if (max_chars-- <= 0)
		{
			appendStringInfoString(&clean, "...");
			break;
		}
		if (secret_len > 0)
		{
			appendStringInfoString(&clean, "********");
			p += secret_len;
			continue;
		}
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			appendStringInfoChar(&clean, ' ');
		else
			appendBinaryStringInfo(&clean, p, len);
		p += len;
	}
	converted = encoding_from_utf8(clean.data);
	if (converted)
	{
		appendStringInfoString(buf, converted);
		return;
	}
	for (const char *p = clean.data; *p;)
	{
		int			len = pg_utf_mblen((const unsigned char *) p);

		converted = encoding_from_utf8(pnstrdup(p, len));
		appendStringInfoString(buf, converted ? converted : "?");
		p += len;
	}
}
