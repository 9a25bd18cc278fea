/*-------------------------------------------------------------------------
 *
 * uuid.c
 *	  The text form of a uuid.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"

/*
 * Writes the uuid's text form and a NUL (UUID_TEXT_LEN + 1 bytes).
 */
void
uuid_write(char *to, const pg_uuid_t *uuid)
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*to++ = '-';
		*to++ = hex[uuid->data[i] >> 4];
		*to++ = hex[uuid->data[i] & 0x0f];
	}
	*to = '\0';
}

/*
 * Reads a uuid as Seam's API writes it: 36 characters and nothing else, which is
 * stricter than uuid_in().  Returns whether it is one.
 */
bool
uuid_read(const char *text, pg_uuid_t *uuid)
{
	static const uint8 at[UUID_LEN] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

	/* the value of a hexadecimal digit, and 1 more, so that 0 is no digit */
	static const uint8 digits[256] = {
		['0'] = 1,['1'] = 2,['2'] = 3,['3'] = 4,['4'] = 5,
		['5'] = 6,['6'] = 7,['7'] = 8,['8'] = 9,['9'] = 10,
		['a'] = 11,['b'] = 12,['c'] = 13,['d'] = 14,['e'] = 15,['f'] = 16,
		['A'] = 11,['B'] = 12,['C'] = 13,['D'] = 14,['E'] = 15,['F'] = 16,
	};

	if (strlen(text) != UUID_TEXT_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++)
	{
		uint8		high = digits[(unsigned char) text[at[i]]];
		uint8		low = digits[(unsigned char) text[at[i] + 1]];

		if (high == 0 || low == 0)
			return false;
		uuid->data[i] = ((high - 1) << 4) | (low - 1);
	}
	return text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-';
}
