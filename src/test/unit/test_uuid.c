/*-------------------------------------------------------------------------
 *
 * test_uuid.c
 *	  The text form of a uuid.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid.h"
#include "unit.h"

static const struct
{
	const char *text;
	bool		expected;		/* it is a uuid */
}			cases[] =

{
	{"d92e0c7b-72a1-4063-9ee8-2acefc240358", true},
	{"D92E0C7B-72A1-4063-9EE8-2ACEFC240358", true},
	{"00000000-0000-0000-0000-000000000000", true},
	{"", false},
	{"d92e0c7b-72a1-4063-9ee8-2acefc24035", false},
	{"d92e0c7b-72a1-4063-9ee8-2acefc2403588", false},
	{"d92e0c7b72a140639ee82acefc240358", false},
	{"{d92e0c7b-72a1-4063-9ee8-2acefc240358}", false},
	{"d92e0c7b-72a14-063-9ee8-2acefc240358", false},
	{"d92e0c7b-72a1-4063-9ee802acefc240358", false},
	{"d92e0c7b072a1-4063-9ee8-2acefc240358", false},
	{"g92e0c7b-72a1-4063-9ee8-2acefc240358", false},
	{"d92e0c7b-72a1-4063-9ee8-2acefc24035g", false},
	{"d92e0c7b-72a1-4063-9ee8-2acefc2403 8", false},
	{"d92e0c7b-72a1-4\xc3\xa9" "3-9ee8-2acefc240358", false},
};

int
main(void)
{
	pg_uuid_t	uuid;
	pg_uuid_t	read;
	char		text[UUID_TEXT_LEN + 1];

	for (int i = 0; i < (int) lengthof(cases); i++)
		unit_check(uuid_read(cases[i].text, &read) == cases[i].expected, "\"%s\"", cases[i].text);

	/* what is written is read again */
	unit_seed(3);
	for (int i = 0; i < 10000; i++)
	{
		for (int j = 0; j < UUID_LEN; j++)
			uuid.data[j] = unit_random(256);
		uuid_write(text, &uuid);
		unit_check(uuid_read(text, &read) && memcmp(&uuid, &read, UUID_LEN) == 0, "\"%s\"", text);
	}
	return unit_end("uuid");
}
