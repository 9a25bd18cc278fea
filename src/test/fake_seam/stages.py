"""The moments at which a misbehaviour can act, in the order in which a request passes them.

Each entry of the table names one of them, and its function is called as stated here; the value is what the entry's
parser made of the SPEC (True for a flag).  At the stages marked FIRST only the first entry of the table that the SPEC
names is called; at all others each of them is, in the order of the table.
"""

# function(plan, rules, connection, head, value): whether the plan acts on this request.  All must agree.
WHEN = 'when'

# FIRST.  function(connection, head, body, value): the head is here, but not the whole body.  It takes the place of
# all that follows.  Only a SPEC in the path acts so early.
EARLY = 'early'

# FIRST.  function(connection, head, body, plan, value): nothing is done yet.  It has to call connection.misbehave()
# with the rest of the plan.
LATE = 'late'

# FIRST, and INSTEAD comes before INSTEAD_DONE.  function(connection, value): takes the place of the answer when the
# time of the answer has come.  The request's work is not done, or it is.
INSTEAD = 'instead'
INSTEAD_DONE = 'instead, done'

# function(reply, value): decides which answer it will be, and whether the request's work is done.
ANSWER = 'answer'

# function(document, value): changes the JSON document before it is text.
DOCUMENT = 'document'

# function(text, value): returns the bytes of the JSON document, changed.
TEXT = 'text'

# function(reply, value): replaces the body.
BODY = 'body'

# function(reply, value): changes the headers, or the form in which the body is sent.
HEAD = 'head'

# function(reply, value): changes the bytes that the answer has become.
BYTES = 'bytes'

# FIRST.  function(connection, body, go, value): all is decided, and go() brings it on its way; function calls it
# later.
HOLD = 'hold'

# FIRST.  function(connection, reply, answered, value): sends the answer, then calls answered().
SEND = 'send'

# FIRST.  function(connection, value): ends the connection after the answer.
CLOSE = 'close'
