"""A SPEC, parsed by the table of misbehaviours."""

import urllib.parse

from .misbehaviours import PLACES, TABLE
from .parsers import BadSpec
from .stages import DOCUMENT, INSTEAD, INSTEAD_DONE, TEXT, WHEN


class Plan:
    """What a SPEC makes of the requests on which it acts, and how often it may still act."""

    def __init__(self, spec, times=None):
        """Parse; BadSpec.  times: how often it acts, whatever the SPEC says of it."""
        values = {}                         # name -> each value that it has
        for part in filter(None, spec.split(',')):
            name, _, text = part.partition('=')
            entry = TABLE.get(name)
            if entry is None:
                raise BadSpec(f'unknown misbehaviour "{name}"')
            try:
                value = entry.parser(urllib.parse.unquote_to_bytes(text))
            except ValueError as error:
                raise BadSpec(f'misbehaviour "{part}": {error}') from None
            if entry.is_many:
                values.setdefault(name, []).append(value)
            else:
                values[name] = [value]
        if times is not None:
            values['times'] = [times]
        self.spec = spec
        self.left = values['times'][0] if 'times' in values else None       # None: no end
        self.stages = {}                    # stage -> (function, value) in the order of the table
        self.closes = False
        for name in sorted(values, key=PLACES.__getitem__):
            entry = TABLE[name]
            self.stages.setdefault(entry.stage, []).extend((entry.function, value) for value in values[name])
            if entry.when is not None:
                # "chance" throws its die last, or a request that does not come into question would throw one
                self.stages.setdefault(WHEN, []).insert(0, (entry.when, values[name][0]))
            self.closes = self.closes or entry.closes
        self.spoils = DOCUMENT in self.stages or TEXT in self.stages
        self.is_silent = INSTEAD in self.stages or INSTEAD_DONE in self.stages

    def at(self, stage):
        """The functions of a stage with their values."""
        return self.stages.get(stage, ())

    def first(self, stage):
        """The first function of a stage with its value, or None."""
        steps = self.stages.get(stage)
        return steps[0] if steps else None

    def without(self, name):
        """The same plan but for one misbehaviour."""
        return Plan(','.join(part for part in self.spec.split(',') if part.partition('=')[0] != name))
