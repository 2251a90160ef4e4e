# Behind wire.py, in a box of its own: runs the checks of a record and writes the verdict. The program that is checked runs in
# another process; its functions are here as handles, whose calls go there and whose plain results come back. So every comparison
# is made here, between values of built-in types, by code that the program cannot reach.
#
# Descriptors: 0 the job, 3 the program's answers, 4 requests to it, 5 the verdict.
import ast


class ProgramError(Exception):
    """An exception of the program's that the checks must not mistake for one of their own."""


GONE = "the program ended"


class Talk:
    """The conversation with the program. When it breaks off, nothing can be passed any more, whatever the checks catch."""

    answered, broken = 0, ""


def ask(kind, *args):
    try:
        send(4, (kind, *args), number_of)
    except BrokenPipeError:
        Talk.broken = GONE
    if not Talk.broken:
        try:
            reply = receive(3, Handle)
        except EOFError:
            Talk.broken = GONE
        except WireError as error:
            Talk.broken = f"the program's answer is no value: {error}"
    if Talk.broken:
        raise ProgramError(Talk.broken)
    Talk.answered += kind == "call"
    if type(reply) is tuple and len(reply) == 2 and reply[0] == "value":
        return reply[1]
    if type(reply) is tuple and len(reply) == 3 and reply[0] == "error" and type(reply[1]) is type(reply[2]) is str:
        raise error_of(*reply[1:])
    Talk.broken = "the program's answer is neither a value nor an error"
    raise ProgramError(Talk.broken)


def error_of(name, text):
    """Built-in exceptions come as what they are, so that checks can ask for them; not those that would end a loop in silence
    (all(map(candidate, ...)) would be true)."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (StopIteration, StopAsyncIteration)):
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and the like want more
            pass
    return ProgramError(f"{name}: {text}")


class Handle:
    """Something of the program's that is not a plain value: a function, an object, an iterator. It can be called, looked into,
    gone through and handed back. It cannot be compared, be true or have a length: the program would be its own judge."""

    __slots__ = ("_handle_",)

    def __init__(self, number):
        object.__setattr__(self, "_handle_", number)

    def __call__(self, *args, **keywords):
        return ask("call", self, args, keywords)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return ask("get", self, name)

    def __setattr__(self, name, value):
        ask("set", self, name, value)

    def __iter__(self):
        iterator = ask("iterate", self)
        while True:
            item = ask("next", iterator)
            if type(item) is not list or not item:
                return
            yield item[0]

    def _refuse(self, *_):
        raise TypeError("an object of the program's is no plain value, and cannot be compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __contains__ = _refuse
    __hash__ = None


def number_of(value):
    if type(value) is Handle:
        return value._handle_
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program")


def names_of(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def read_reference(text, space):
    """What the record's own solution imports is imported here; the names of its functions and classes are given back."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return set()
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            try:
                exec(compile(ast.Module([node], []), "reference", "exec"), space)
            except ImportError:
                pass
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def check(program, reference, setup, text, entry):
    space = {"__name__": "check"}
    defined = read_reference(reference, space)
    used = names_of(ast.parse(setup)) | names_of(ast.parse(text))
    if "random" in setup + text:
        import random

        random.seed(0)  # the same verdict each time
    ask("run", program)
    # The program is asked for what its record defines, and for what nobody here knows.
    wanted = sorted(name for name in used if name in defined or name not in space and not hasattr(builtins, name))
    wanted += [entry] if entry and entry not in wanted else []
    found = ask("find", wanted)
    handles = {name: thing for name, thing in zip(wanted, found) if type(thing) is Handle}
    space.update(handles)
    exec(compile(setup, "setup", "exec"), space)
    if entry:  # HumanEval's prompt, which is the set-up, has a function of that name without a body
        if entry not in handles:
            raise NameError(f"the program defines no {entry}")
        space[entry] = handles[entry]
    exec(compile(text, "check", "exec"), space)
    if Talk.broken:
        raise ProgramError(Talk.broken)
    if not Talk.answered:
        raise ProgramError("the checks never called the program")


def place_of(error, text):
    """The line of the checks at which it went wrong."""
    line, trace = "", error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "check":
            line = text.splitlines()[trace.tb_lineno - 1].strip()
        trace = trace.tb_next
    return f" at {line}" if line else ""


def main():
    program, *texts = decode(os.read(0, MAX_BYTES), number_of)
    texts = [text.decode("utf-8", "replace") for text in texts]
    ask("find", [])  # the other Python is there: from now on what goes wrong is the program's doing
    os.write(5, b"ready\n")
    try:
        check(program, *texts)
        verdict = "passed"
    except BaseException as error:
        kind = "ended" if Talk.broken == GONE else "failed"
        text = f"{type(error).__name__}: {str(error)[:200]}".rstrip(": ")
        verdict = f"{kind} {text}{place_of(error, texts[2])[:300]}"
    os.write(5, " ".join(verdict.split()).encode("utf-8", "replace") + b"\n")
    os._exit(0)


main()
