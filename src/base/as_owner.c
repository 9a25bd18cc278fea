/*-------------------------------------------------------------------------
 *
 * as_owner.c
 *	  To do something as the owner of a relation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/as_owner.h"
#include "catalog/pg_class.h"
#include "utils/syscache.h"

/*
 * Returns the owner of a relation, or InvalidOid when it is not there.
 */
Oid
as_owner_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Makes the current user this owner, with SECURITY_... flags besides those that are set.
 * Returns what as_owner_end() takes; an error undoes it with the (sub)transaction.  Raises
 * an error when there is no owner.
 */
AsOwner
as_owner_begin(Oid owner, int flags)
{
	AsOwner		as;

	if (!OidIsValid(owner))
		elog(ERROR, "a relation has gone while its owner was looked for");
	GetUserIdAndSecContext(&as.user, &as.context);
	SetUserIdAndSecContext(owner, as.context | SECURITY_LOCAL_USERID_CHANGE | flags);
	return as;
}

/*
 * Makes the caller the current user again.
 */
void
as_owner_end(AsOwner as)
{
	SetUserIdAndSecContext(as.user, as.context);
}
