/*-------------------------------------------------------------------------
 *
 * test_date.c
 *	  Dates as HTTP writes them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "base/date.h"
#include "unit.h"

static const struct
{
	const char *text;
	int64		expected;		/* -1: it is none */
}			cases[] =

{
	{"Sun, 06 Nov 1994 08:49:37 GMT", INT64CONST(784111777)},
	{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
	{"Thu, 29 Feb 2024 23:59:59 GMT", INT64CONST(1709251199)},
	{"Fri, 27 Nov 2026 17:46:46 GMT", INT64CONST(1795801606)},
	{"Tue, 19 Jan 2038 03:14:08 GMT", INT64CONST(2147483648)},
	{"Sat, 31 Dec 2016 23:59:60 GMT", INT64CONST(1483228800)},
	{"", -1},
	{"Sun, 06 Nov 1994 08:49:37", -1},
	{"Sun, 06 Nov 1994 08:49:37 UTC", -1},
	{"Sun, 06 Nov 1994 08:49:37 GMT ", -1},
	{"Sun, 6 Nov 1994 08:49:37 GMT", -1},
	{"Sun, 00 Nov 1994 08:49:37 GMT", -1},
	{"Sun, 06 Nor 1994 08:49:37 GMT", -1},
	{"Soy, 06 Nov 1994 08:49:37 GMT", -1},
	{"Sun, 06 Nov 1994 24:49:37 GMT", -1},
	{"Sun, 06 Nov 1994 08:60:37 GMT", -1},
	{"Sun, 06 Nov 1994 08:49:61 GMT", -1},
	{"Sun, 06 Nov 1994 08:49:-7 GMT", -1},
	{"Sunday, 06-Nov-94 08:49:37 GMT", -1},
	{"Sun Nov  6 08:49:37 1994", -1},
};

int
main(void)
{
	int64		read;

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		bool		ok;

		read = -1;
		ok = date_read_imf(cases[i].text, &read);
		unit_check(ok == (cases[i].expected != -1) && read == cases[i].expected,
				   "\"%s\": " INT64_FORMAT, cases[i].text, read);
	}
	/* what the C library writes is read again */
	unit_seed(2);
	for (int i = 0; i < 10000; i++)
	{
		time_t		t = (time_t) unit_random(UINT32_MAX) * 2;
		struct tm	tm;
		char		text[64];

		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
		unit_check(date_read_imf(text, &read) && read == (int64) t,
				   "\"%s\": " INT64_FORMAT, text, read);
	}
	return unit_end("date");
}
