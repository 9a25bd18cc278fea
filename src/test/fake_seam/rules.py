"""Which misbehaviour acts on a request: that of its path, and rules for identities."""

import random

from .plan import Plan
from .stages import WHEN

ALL = '*'                   # the identity of a rule for all


class Rules:
    """The plans of paths and of identities."""

    def __init__(self, seed=None):
        self.random = random.Random(seed)
        self.of_identities = []     # (identity or ALL, Plan) in the order in which they came
        self.of_paths = {}          # SPEC -> Plan

    def path_plan(self, spec):
        """The one Plan of all paths with this SPEC, which share its count; BadSpec."""
        plan = self.of_paths.get(spec)
        if plan is None:
            plan = self.of_paths[spec] = Plan(spec)
        return plan

    def add(self, identity, plan):
        self.of_identities.append((identity, plan))

    def remove(self, identity):
        self.of_identities = [rule for rule in self.of_identities if rule[0] != identity]

    def acts(self, plan, connection, head):
        """Whether the plan acts on this request; counts it if it does."""
        for function, value in plan.at(WHEN):
            if not function(plan, self, connection, head, value):
                return False
        if plan.left is not None:
            plan.left -= 1
        return True

    def choose(self, connection, head, body):
        """The plan that acts on this request, or None."""
        if head.plan is not None and self.acts(head.plan, connection, head):
            return head.plan
        if self.of_identities:
            identity = connection.seam.api.concerned(body)
            for concerned, plan in self.of_identities:
                if concerned in (ALL, identity) and self.acts(plan, connection, head):
                    return plan
        return None
