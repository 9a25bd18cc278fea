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
 * stricter than uuid_in().  Returns whether it is one; *uuid is undefined when not.
 */
bool
uuid_read(const char *text, pg_uuid_t *uuid)
{
	static const uint8 at[UUID_LEN] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

	/* the value of a hexadecimal digit, with a bit that others do not have */
	enum
	{
		IS_DIGIT = 0x10
	};
	static const uint8 digits[256] = {
		['0'] = 0x10,['1'] = 0x11,['2'] = 0x12,['3'] = 0x13,['4'] = 0x14,
		['5'] = 0x15,['6'] = 0x16,['7'] = 0x17,['8'] = 0x18,['9'] = 0x19,
		['a'] = 0x1a,['b'] = 0x1b,['c'] = 0x1c,['d'] = 0x1d,['e'] = 0x1e,['f'] = 0x1f,
		['A'] = 0x1a,['B'] = 0x1b,['C'] = 0x1c,['D'] = 0x1d,['E'] = 0x1e,['F'] = 0x1f,
	};
	uint8		all = IS_DIGIT;

	if (strlen(text) != UUID_TEXT_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++)
	{
		uint8		high = digits[(unsigned char) text[at[i]]];
		uint8		low = digits[(unsigned char) text[at[i] + 1]];

		all &= high & low;
		uuid->data[i] = (high << 4) | (low & 0x0f);
	}
	return (all & IS_DIGIT) != 0 &&
		text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-';
}
