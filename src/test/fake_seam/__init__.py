"""A stand-in for Seam's API whose misbehaviour the request asks for.

It answers the routes that seam_ik uses as Seam's OpenAPI document says, keeps a record of every request and of every
key that it issued, and misbehaves where it is told to.  It is one process with one thread and one event loop that
never blocks, because a test may have thousands of slow calls in flight.  It needs Python 3.9 and its standard library.

    process.py         the command line, the sockets, the help text
    owner.py           the process with which this one ends
    connection.py      one client: reads its requests, has them answered or misbehaved to
    request.py         the head of a request, and what the head alone decides
    seam.py            the state of the fake: what the next three files keep
    api.py             the keys and identities, and what each route of the API does with them
    rules.py           which misbehaviour acts on a request
    record.py          what was asked, and the counts of it
    control.py         the control routes, a table
    answers.py         answers without misbehaviour: errors of Seam's form, the bytes of an answer
    texts.py           uuids and dates

    misbehaviours.py   THE TABLE: each misbehaviour is one entry of it
    stages.py          the moments at which a misbehaviour can act, and what its function is called with
    parsers.py         the values that stand in a SPEC
    plan.py            a SPEC, parsed by the table
    conditions.py      the functions of the stage at which it is decided whether a plan acts
    reply.py           the answer in the making, and the functions that change it
    document.py        the JSON document of an answer, and the functions that spoil it
    wire.py            the functions that decide when bytes go, and whether any do
"""
