/*-------------------------------------------------------------------------
 *
 * values.c
 *	  Values as Seam's API writes them: times and URLs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "seam/values.h"
#include "utils/datetime.h"

/*
 * Reads exactly n digits at *p, and moves it on.  Returns whether they are there
 * and within min and max.
 */
static bool
read_digits(const char **p, int n, int min, int max, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++)
	{
		if ((*p)[i] < '0' || (*p)[i] > '9')
			return false;
		*value = *value * 10 + ((*p)[i] - '0');
	}
	*p += n;
	return *value >= min && *value <= max;
}

/*
 * Reads an RFC 3339 date-time, which is what OpenAPI's date-time means.  Done by
 * hand because timestamptz_in() depends on settings, throws, and takes much that
 * is not one.  More than six digits of a second's fraction are rounded.
 * Returns whether it is one.
 */
bool
values_read_time(const char *p, TimestampTz *time)
{
	int			year,
				month,
				day,
				hour,
				minute,
				second;
	int			fraction = 0;
	int			zone = 0;

	if (!read_digits(&p, 4, 1, 9999, &year) || *p++ != '-' ||
		!read_digits(&p, 2, 1, 12, &month) || *p++ != '-' ||
		!read_digits(&p, 2, 1, day_tab[isleap(year)][month - 1], &day) ||
		(*p != 'T' && *p != 't' && *p != ' '))
		return false;
	p++;
	if (!read_digits(&p, 2, 0, 23, &hour) || *p++ != ':' ||
		!read_digits(&p, 2, 0, 59, &minute) || *p++ != ':' ||
		!read_digits(&p, 2, 0, 60, &second))
		return false;
	if (*p == '.')
	{
		int			scale = 1000000;

		if (p[1] < '0' || p[1] > '9')
			return false;
		for (p++; *p >= '0' && *p <= '9'; p++)
		{
			if (scale > 1)
			{
				scale /= 10;
				fraction += (*p - '0') * scale;
			}
			else if (scale == 1)
			{
				fraction += *p >= '5';
				scale = 0;
			}
		}
	}
	if (*p == 'Z' || *p == 'z')
		p++;
	else if (*p == '+' || *p == '-')
	{
		int			sign = *p++ == '-' ? -1 : 1;
		int			zone_hour,
					zone_minute;

		if (!read_digits(&p, 2, 0, 23, &zone_hour) || *p++ != ':' ||
			!read_digits(&p, 2, 0, 59, &zone_minute))
			return false;
		zone = sign * (zone_hour * MINS_PER_HOUR + zone_minute) * SECS_PER_MINUTE;
	}
	else
		return false;
	if (*p != '\0')
		return false;
	*time = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
		((int64) hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second - zone) * USECS_PER_SEC +
		fraction;
	return true;
}

/*
 * Copies a URL.  What is not printable ASCII is percent-encoded as RFC 3987 maps
 * an IRI to a URI, so that every encoding of a database holds it.  palloc'd;
 * NULL for the empty string.
 */
char *
values_read_url(const char *text)
{
	char	   *url;
	char	   *to;

	if (text[0] == '\0')
		return NULL;
	url = to = palloc(strlen(text) * 3 + 1);
	for (const unsigned char *p = (const unsigned char *) text; *p; p++)
	{
		if (*p <= ' ' || *p >= 0x7f)
			to += sprintf(to, "%%%02X", *p);
		else
			*to++ = *p;
	}
	*to = '\0';
	return url;
}
