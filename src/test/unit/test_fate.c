/*-------------------------------------------------------------------------
 *
 * test_fate.c
 *	  What becomes of an intent: a table of cases, and what must hold for each of
 *	  all combinations of facts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "logic/fate.h"
#include "unit.h"

/* A case: what is known, and what is expected. */
typedef struct Case
{
	const char *what;
	FateFacts	facts;
	Fate		fate;
} Case;

#define HERE .is_ours = true, .same_timeline = true

static const Case cases[] = {
	{"open", {FATE_XACT_OPEN, false, true, HERE}, FATE_WAIT},
	{"open, and nothing was issued", {FATE_XACT_OPEN, false, false, HERE}, FATE_WAIT},
	{"committed, and it waits for a standby", {FATE_XACT_OPEN, true, true, HERE}, FATE_WAIT},
	{"prepared, in a copy of the files", {FATE_XACT_OPEN, false, true}, FATE_WAIT},
	{"committed", {FATE_XACT_COMMITTED, true, true, HERE}, FATE_DELETE},
	{"committed, and nothing was issued", {FATE_XACT_COMMITTED, false, false, HERE}, FATE_DELETE},
	{"committed, and somebody has deleted the row", {FATE_XACT_COMMITTED, false, true, HERE},
	FATE_REPORT_DELETED},
	{"committed, in a copy of the files", {FATE_XACT_COMMITTED, true, true}, FATE_DELETE},
	{"committed, in a copy of the files, and somebody has deleted the row",
	{FATE_XACT_COMMITTED, false, true}, FATE_REPORT_DELETED},
	{"committed, then promoted", {FATE_XACT_COMMITTED, true, true,.is_ours = true}, FATE_DELETE},
	{"rolled back", {FATE_XACT_ABORTED, false, true, HERE}, FATE_REVOKE},
	{"rolled back, and nothing was issued", {FATE_XACT_ABORTED, false, false, HERE}, FATE_DELETE},
	{"rolled back, says the log, and the row is there", {FATE_XACT_ABORTED, true, true, HERE},
	FATE_DELETE},
	{"open when the files were copied", {FATE_XACT_ABORTED, false, true, false, true},
	FATE_REPORT_COPY},
	{"open at a promotion", {FATE_XACT_ABORTED, false, true, true, false}, FATE_REPORT_TIMELINE},
	{"open at a promotion, and nothing was issued", {FATE_XACT_ABORTED, false, false, true, false},
	FATE_DELETE},
	{"too old", {FATE_XACT_UNKNOWN, false, true, HERE}, FATE_REPORT_OLD},
	{"too old, and the row is there", {FATE_XACT_UNKNOWN, true, true, HERE}, FATE_DELETE},
	{"too old, in a copy of the files", {FATE_XACT_UNKNOWN, false, true}, FATE_REPORT_COPY},
};

/*
 * Every combination of facts: a key is revoked only where everything says that it may
 * be, and nothing that may be alive is forgotten.
 */
static void
test_all(void)
{
	for (int i = 0; i < 64; i++)
	{
		FateFacts	facts = {.xact = i & 3,.has_row = i & 4,.may_have_key = i & 8,
		.is_ours = i & 16,.same_timeline = i & 32};
		Fate		fate = fate_of(&facts);

		unit_check((fate == FATE_WAIT) == (facts.xact == FATE_XACT_OPEN),
				   "%d: it waits for the end of its transaction, and no longer", i);
		unit_check(fate != FATE_REVOKE || (facts.xact == FATE_XACT_ABORTED && !facts.has_row &&
										   facts.is_ours && facts.same_timeline),
				   "%d: nothing is revoked that may be owned", i);
		unit_check(fate != FATE_DELETE || facts.has_row || !facts.may_have_key,
				   "%d: nothing is forgotten that may be alive and has no owner", i);
		unit_check(fate == FATE_WAIT || fate == FATE_DELETE ||
				   (facts.may_have_key && !facts.has_row),
				   "%d: nothing is revoked or reported that is owned, or does not exist", i);
	}
}

int
main(void)
{
	for (int i = 0; i < (int) lengthof(cases); i++)
		unit_check(fate_of(&cases[i].facts) == cases[i].fate, "%s", cases[i].what);
	test_all();
	return unit_end("fate");
}
