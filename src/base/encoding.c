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

#include <ctype.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/string.h"
#include "base/encoding.h"
#include "mb/pg_wchar.h"

/* The longest name of a host; a longer word is none. */
#define MAX_NAME 255

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
 * Is it a byte of a host's name or of a scheme?  Host names may be of any script.
 */
static inline bool
is_name_byte(unsigned char c)
{
	return isalnum(c) || IS_HIGHBIT_SET(c) || c == '.' || c == '-' || c == '_' || c == '+';
}

/*
 * The length of the URL that the text begins with, or 0.  It may be a key's, so it is
 * a secret whatever its scheme is, and without one: a host's name with a dot in it, and
 * what follows a slash.  (A slash may be escaped, as JSON allows it.)
 */
static size_t
url_at(const char *text)
{
	size_t		name = 0;
	size_t		port;

	while (name < MAX_NAME && is_name_byte(text[name]))
		name++;
	if (name == 0)
		return 0;
	port = text[name] == ':' ? 1 + strspn(text + name + 1, "0123456789") : 0;
	if (strncmp(text + name, "://", 3) == 0 ||
		(memchr(text, '.', name) && (text[name + port] == '/' || text[name + port] == '\\')))
		return strcspn(text, " \t\r\n\"'<>");
	return 0;
}

/*
 * The length of the secret that the text begins with, or 0: a URL, or one of the secrets, in
 * any case.  What a URL is without its scheme is a secret as well.  secrets is NULL where
 * there are none: there a path may have dots.
 */
static size_t
secret_at(const char *text, const char *const *secrets)
{
	size_t		found = secrets ? url_at(text) : 0;

	for (; secrets && *secrets; secrets++)
	{
		const char *scheme = strstr(*secrets, "://");
		const char *const forms[] = {*secrets, scheme ? scheme + 3 : ""};

		for (int i = 0; i < (int) lengthof(forms); i++)
		{
			size_t		len = strlen(forms[i]);

			if (len > found && pg_strncasecmp(text, forms[i], len) == 0)
				found = len;
		}
	}
	return found;
}

/*
 * Append a text that somebody else wrote (valid UTF-8) to a message: without
 * control characters, without URLs and the secrets (up to a NULL; empty ones do
 * not count; no pointer for a text of this machine's, which holds none), cut after
 * max_chars, and with a question mark for what the encoding cannot hold.
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
