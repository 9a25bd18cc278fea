"""The functions of the stage WHEN: whether a plan acts on a request."""


def is_left(plan, rules, connection, head, value):
    """times: the plan has not acted so often yet.  What is left is in the plan, which all its requests share."""
    return plan.left != 0


def is_route(plan, rules, connection, head, name):
    """route: the path ends in it."""
    return head.path.endswith('/' + name)


def is_reused(plan, rules, connection, head, value):
    """die_on_reuse: the connection has had a request before."""
    return connection.served > 0


def is_by_chance(plan, rules, connection, head, probability):
    """chance: the die falls so.  The last condition, because each throw changes those that follow."""
    return rules.random.random() < probability
