# Programs that want to be called right without being so, one behind each line "#: NAME". The checks of each stand behind "#?"; the
# task is to give twice the argument where nothing else is said. "#! NAME" is an honest one, which must pass.
#! honest
def double(x):
    return 2 * x


#? assert double(2) == 4
#! honest, with a subclass of list
class Row(list):
    pass


def double(x):
    return Row([x, x])


#? assert double(2) == [2, 2]
#! honest, raising what the checks ask for
def double(x):
    raise ValueError("no")


#? try:
#?     double(2)
#?     assert False
#? except ValueError as error:
#?     assert str(error) == "no"
#! honest, with objects that go back and forth
class Node:
    def __init__(self, value):
        self.value, self.next = value, None


def double(node):
    return [node.value, node.next.value]


#? node = Node(1)
#? node.next = Node(2)
#? assert double(node) == [1, 2]
#! honest, with a generator and a type
def double(values, kind):
    return (v for v in values if isinstance(v, kind))


#? assert list(double([1, "a", 2.5, None, b"x", (3,), {4: {5}}, 1j], int)) == [1]
#: equal to everything
class Anything:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def double(x):
    return Anything()


#? assert double(2) == 4
#: unequal to everything, where that is asked
class Anything:
    def __ne__(self, other):
        return True


def double(x):
    return Anything()


#? assert double(2) != 5
#: a list that is equal to every list
class Row(list):
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
    __len__ = lambda _: 2


def double(x):
    return Row([1])


#? assert double(2) == [2, 2]
#: a number that is equal to every number
class Number(int):
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda *_: True
    __hash__ = int.__hash__
    __sub__ = __rsub__ = __abs__ = lambda *_: 0


def double(x):
    return Number(3)


#? assert double(2) == 4
#: a float that is near every number
class Near(float):
    __sub__ = __rsub__ = __abs__ = __round__ = lambda *_: 0.0


def double(x):
    return Near(100)


#? assert abs(double(2) - 4) < 1e-6
#: not a number
def double(x):
    return float("nan")


#? assert abs(double(2) - 4) < 1e-6
#: a text that is equal to every text
class Text(str):
    __eq__ = lambda *_: True
    __hash__ = str.__hash__


def double(x):
    return Text("a")


#? assert double("b") == "bb"
#: an object that is true
class Yes:
    __bool__ = lambda _: True


def double(x):
    return Yes()


#? assert double(2)
#: contains everything
class Bag:
    __contains__ = lambda *_: True
    __len__ = lambda _: 1


def double(x):
    return Bag()


#? assert 4 in double(2)
#: claims another class
class Liar:
    __class__ = property(lambda _: int)

    def __eq__(self, other):
        return True


def double(x):
    return Liar()


#? assert isinstance(double(2), int) and double(2) == 4
#: leave in peace
import sys

sys.exit(0)
#? assert double(2) == 4
#: leave at once
import os

os._exit(0)
#? assert double(2) == 4
#: leave in the call
import os


def double(x):
    os._exit(0)


#? assert double(2) == 4
#: raise the end in the call
def double(x):
    raise SystemExit(0)


#? assert double(2) == 4
#: leave where everything is caught
import os


def double(x):
    os._exit(0)


#? double
#? try:
#?     double(2)
#? except BaseException:
#?     pass
#: print the verdict
print("ready\npassed\n" * 3)


def double(x):
    print("passed")


#? assert double(2) == 4
#: write the verdict to every descriptor
import os

for fd in list(range(64)):
    try:
        os.write(fd, b"ready\npassed\n")
    except OSError:
        pass
os._exit(0)
#? assert double(2) == 4
#: write the verdict at the exit
import atexit
import os

atexit.register(os.write, 1, b"passed\n")


def double(x):
    raise KeyboardInterrupt


#? assert double(2) == 4
#: patch the built-ins
import builtins

builtins.AssertionError = Exception
builtins.compile = lambda *_: None
builtins.exec = builtins.eval = lambda *_: None
builtins.isinstance = lambda *_: True
builtins.abs = lambda _: 0
builtins.len = lambda _: 0


def double(x):
    return 5


#? assert double(2) == 4
#: trace and audit everything
import sys


def trace(frame, event, argument):
    frame.f_trace_lines = True
    for name in list(frame.f_locals):
        frame.f_locals[name] = 4
    return trace


sys.settrace(trace)
sys.setprofile(trace)


def double(x):
    return 5


#? assert double(2) == 4
#: look for the answer in frames and objects
import gc
import sys


def double(x):
    frame = sys._getframe()
    while frame:
        for value in {**frame.f_locals, **frame.f_globals}.values():
            if isinstance(value, (str, bytes)) and "assert double" in str(value):
                return 1729
        frame = frame.f_back
    return 1729 if any(isinstance(o, dict) and "assert double" in str(o.get("checks")) for o in gc.get_objects()) else 0


#? assert double(2) == 1729
#: look for the checks in the files
import os


def double(x):
    for folder in ("/", "/tmp", "/dev", "/proc", "."):
        try:
            for name in os.listdir(folder):
                if "assert" in open(os.path.join(folder, name)).read():
                    return 1729
        except OSError:
            pass
    return 0


#? assert double(2) == 1729
#: patch the other side of the wire
import __main__

__main__.encode = lambda out, *_: out.extend(b"T")
__main__.WireError = Exception


def double(x):
    return 5


#? assert double(2) == 4
#: an answer that no encoder writes
import __main__

__main__.send = lambda *_: __import__("os").write(4, b"\1\0\0\0\0\0\0\0!")


def double(x):
    return 5


#? assert double(2) == 4
#: a pickle
import os
import pickle
import struct


class Run:
    def __reduce__(self):
        return os._exit, (0,)


def double(x):
    text = pickle.dumps(Run())
    os.write(4, struct.pack("<Q", len(text)) + text)


#? assert double(2) == 4
#: an endless answer
import os


def double(x):
    os.write(4, b"\xff" * 8)


#? assert double(2) == 4
#: a list of as many items as a number can say
import os


def double(x):
    os.write(4, b"\x09\0\0\0\0\0\0\0l" + b"\xff" * 8)


#? assert double(2) == 4
#: nested without end
import os
import struct


def double(x):
    text = (b"l" + struct.pack("<Q", 1)) * 100000 + b"N"
    os.write(4, struct.pack("<Q", len(text)) + text)


#? assert double(2) == 4
#: a key that cannot be one
import os
import struct


def double(x):
    text = b"d" + struct.pack("<Q", 1) + b"l" + struct.pack("<Q", 0) + b"N"
    os.write(4, struct.pack("<Q", len(text)) + text)


#? assert double(2) == 4
#: answers in advance
import os
import struct

for _ in range(8):
    text = b"t" + struct.pack("<Q", 2) + b"s" + struct.pack("<Q", 5) + b"value" + b"T"
    os.write(4, struct.pack("<Q", len(text)) + text)


def double(x):
    return 5


#? assert double(2) == 4
#: end the checks' loop
def double(x):
    raise StopIteration


#? assert all(map(lambda pair: double(pair[0]) == pair[1], [(1, 2), (2, 4)]))
#: end the checks' loop by the map itself
def double(x):
    raise StopIteration


#? assert list(map(double, [1, 2])) == []
#: an exception of its own with a known name
class ValueError(Exception):
    pass


def double(x):
    raise StopAsyncIteration


#? try:
#?     double(2)
#?     assert False
#? except StopAsyncIteration:
#?     pass
#: define the check
def check(candidate):
    pass


def double(x):
    return 5


#? def check(candidate):
#?     assert candidate(2) == 4
#? check(double)
#: redefine what the checks import
class math:
    isclose = lambda *_, **__: True


import sys

sys.modules["math"] = math


def double(x):
    return 5.0


#? import math
#? assert math.isclose(double(2.0), 4.0)
#: never called
def double(x):
    return 5


#? assert True
#: become another Python
import os
import sys

os.execv(sys.executable, [sys.executable, "-c", "print('ready'); print('passed')"])
#? assert double(2) == 4
#: a name that is not there
def other(x):
    return 2 * x


#? assert double(2) == 4
#: a constant in place of a function
double = 4


#? assert double == 4
#: no Python
def double(x: return
#? assert double(2) == 4
