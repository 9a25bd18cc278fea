/*-------------------------------------------------------------------------
 *
 * date.c
 *	  Dates as HTTP writes them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "base/date.h"

/*
 * Returns the number of two decimal digits, or -1 when they are none.
 */
static int
two_digits(const char *text)
{
	if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
		return -1;
	return (text[0] - '0') * 10 + (text[1] - '0');
}

/*
 * Returns which of the n names, of three letters each, the text begins with, or -1.
 */
static int
find_name(const char *text, const char *names, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (memcmp(text, names + 3 * i, 3) == 0)
			return i;
	}
	return -1;
}

/*
 * Reads a date of HTTP's preferred format, an IMF-fixdate (RFC 9110, 5.6.7), such as
 * "Sun, 06 Nov 1994 08:49:37 GMT", into *unix_time, in seconds since 1970.  Returns
 * false, and leaves that alone, when the text is anything else.
 */
bool
date_read_imf(const char *text, int64 *unix_time)
{
	static const char form[] = "???, ?? ??? ???? ??:??:?? GMT";
	struct tm	tm = {0};
	int			century;
	int			year;

	for (int i = 0; i < (int) sizeof(form); i++)
	{
		/*
		 * the NUL at the end is compared, too, and ends a text that is
		 * shorter
		 */
		if (form[i] == '?' ? text[i] == '\0' : text[i] != form[i])
			return false;
	}
	century = two_digits(text + 12);
	year = two_digits(text + 14);
	tm.tm_mday = two_digits(text + 5);
	tm.tm_mon = find_name(text + 8, "JanFebMarAprMayJunJulAugSepOctNovDec", 12);
	tm.tm_hour = two_digits(text + 17);
	tm.tm_min = two_digits(text + 20);
	tm.tm_sec = two_digits(text + 23);
	if (find_name(text, "MonTueWedThuFriSatSun", 7) < 0 ||
		century < 0 || year < 0 || tm.tm_mon < 0 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 ||
		tm.tm_sec < 0 || tm.tm_sec > 60)
		return false;
	tm.tm_year = century * 100 + year - 1900;
	*unix_time = (int64) timegm(&tm);
	return true;
}
