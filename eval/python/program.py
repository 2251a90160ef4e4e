# Behind wire.py, in the box of the program: runs what a model wrote and answers the checker's requests from descriptor 3 on
# descriptor 4. All of this is the program's to change; that gives it nothing but the choice of its answers.
import sys


class Host:
    def __init__(self):
        self.module = type(sys)("program")
        sys.modules["program"] = self.module
        self.kept = []  # what has a handle

    def handle_of(self, value):
        self.kept.append(value)
        return len(self.kept) - 1

    def of_handle(self, number):
        return self.kept[number]

    # One method per request.
    def run(self, text):
        exec(compile(text, "program", "exec"), self.module.__dict__)

    def find(self, names):
        """A handle for each name that the program knows and that is not a plain value; None for the others."""
        found = [self.module.__dict__.get(name) for name in names]
        return [value if callable(value) else None for value in found]

    def call(self, function, args, keywords):
        return function(*args, **keywords)

    def get(self, thing, name):
        return getattr(thing, name)

    def set(self, thing, name, value):
        setattr(thing, name, value)

    def iterate(self, thing):
        return iter(thing)

    def next(self, iterator):
        for value in iterator:
            return [value]
        return []

    def answer(self):
        kind, *args = receive(3, self.of_handle)
        try:
            value = getattr(self, kind)(*args)
            send(4, ("value", value), self.handle_of)
        except BaseException as error:
            try:
                text = str(error)
            except Exception:
                text = ""
            send(4, ("error", type(error).__name__, text[:300]), self.handle_of)


host = Host()
try:
    while True:
        host.answer()
except EOFError:
    os._exit(0)
