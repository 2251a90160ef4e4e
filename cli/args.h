// The command line. One table (cli/commands.c) says what commands and flags there are; parsing, --help and every error
// message come from it. A command is `int cmd_NAME(const struct Args *)` in its own file and returns an exit status.
#pragma once
#include "runtime/base.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum ArgKind {
    ARG_SWITCH, // no value: --json
    ARG_TEXT,   // any text
    ARG_FILE,   // the name of a file or folder: text, not empty, and shells complete it
    ARG_LIST,   // any text, as often as wanted
    ARG_INT,    // a whole number within min .. max
    ARG_FLOAT,  // a number within min .. max
    ARG_CHOICE  // one of `value`, written "full|lora"
};

struct Flag {
    const char *name; // without the dashes; NULL with help: a heading inside --help; NULL without: end of the table
    char short_name;  // 'p' for -p; 0: none
    enum ArgKind kind;
    const char *value;    // name of the value in --help ("FILE"), or the choices
    const char *fallback; // value when not given; NULL: none, args_text() gives NULL then
    const char *help;
    double min, max; // of ARG_INT and ARG_FLOAT, both included; 0, 0: no limits
    bool required;
};

// The common flags that are not of every command.
enum { TAKES_DEVICE = 1, TAKES_SEED = 2, TAKES_JSON = 4, TAKES_ALL = TAKES_DEVICE | TAKES_SEED | TAKES_JSON };

struct Args;
struct Command {
    const char *name;
    int (*run)(const struct Args *args);
    const char *summary;  // one line
    const char *operands; // "MODEL [FILTER]"
    uint32_t min_operands, max_operands;
    const struct Flag *flags; // up to a zeroed entry
    unsigned takes;           // TAKES_...
    const char *example;      // one or more whole lines
};
extern const struct Command COMMANDS[]; // up to a zeroed entry
extern const struct Flag COMMON_FLAGS[];
// Whether a common flag says anything to this command; what it would ignore is refused. True of the command's own.
bool args_takes(const struct Command *command, const struct Flag *flag);

enum { ARGS_MAX_OPERANDS = 16, ARGS_MAX_FLAGS = 96, ARGS_MAX_LIST = 32, ARGS_MAX_CHOICE = 24 };
struct Args {
    const struct Command *command;
    char **words; // (n_words) as given behind the command's name
    uint32_t n_words;
    uint32_t n_operands;
    const char *operands[ARGS_MAX_OPERANDS];
    const char *values[ARGS_MAX_FLAGS]; // as given, by position in the command's flags and then the common ones
    char choices[ARGS_MAX_FLAGS][ARGS_MAX_CHOICE]; // what `values` points to of ARG_CHOICE: as the table writes it
    struct {
        const struct Flag *flag;
        const char *value;
    } list[ARGS_MAX_LIST]; // of ARG_LIST, all flags together
    uint32_t n_list;
};

// Parses what follows the command's name. False after one line on stderr.
bool args_parse(struct Args *args, const struct Command *command, int argc, char **argv);
// The nearest command to a misspelt one, or NULL when none is near.
const struct Command *args_find_command(const char *name);
const char *args_nearest_command(const char *name);
void args_help(const struct Command *command, FILE *to); // NULL: the overview of all commands

// The whole command line, "vkmoe" and the command's name first: args->n_words + 2 words that live as long as args. malloc'ed.
const char **args_command_line(const struct Args *args);
// Values; a name that the table does not list is a programmer's mistake.
bool args_given(const struct Args *args, const char *name); // on the command line, not by default
bool args_switch(const struct Args *args, const char *name);
const char *args_text(const struct Args *args, const char *name); // NULL: not given and no default
// All values of an ARG_LIST in their order; gives how many, at most ARGS_MAX_LIST.
uint32_t args_list(const struct Args *args, const char *name, const char *values[ARGS_MAX_LIST]);
int64_t args_int(const struct Args *args, const char *name);
double args_float(const struct Args *args, const char *name);
bool args_choice(const struct Args *args, const char *name, const char *choice); // is it this one?

// The flag of this name and its place in `values`; NULL: the command has none.
const struct Flag *args_flag(const struct Args *args, const char *name, uint32_t *index);

// Wrong use of a flag that the table cannot see (two that exclude each other): tells one line, gives EXIT_USAGE.
int args_wrong(const struct Args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Of a check deeper inside, which gave false after its line: notes that this line is about wrong use, for the exit status. Gives ok.
bool args_good(bool ok);
// Whether the last line told was such a one.
bool args_were_wrong(void);

// The whole program; main() and the tests call it.
int cli_main(int argc, char **argv);
