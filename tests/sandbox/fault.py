

# Behind a record's own solution: each of its functions that the checks name gives something else than it would.
def _plant(name, function, depth=[0]):
    def other(v):
        changes = (
            (bool, lambda v: not v),
            ((int, float, complex), lambda v: v + 1),
            (str, lambda v: v + "x"),
            (list, lambda v: v + [None]),
            (tuple, lambda v: (*v, None)),
            (dict, lambda v: {**v, "x": "x"}),
            (set, lambda v: v | {"x"}),
        )
        return next((change(v) for kind, change in changes if isinstance(v, kind)), 0)

    def faulty(*args, **keywords):
        depth[0] += 1
        try:
            v = function(*args, **keywords)
        finally:
            depth[0] -= 1
        return v if depth[0] else other(v)  # not inside its own recursion

    globals()[name] = faulty


import re as _re

for _name in set(_re.findall(r"\w+", _checks)):
    if type(globals().get(_name)) is type(_plant):
        _plant(_name, globals()[_name])
