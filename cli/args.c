// Parsing by the table of cli/commands.c: values are checked here once, so that a command only reads them.
#include "cli/args.h"
#include "cli/term.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- The table ----

// The command's own flags first, then the common ones: one numbering for `values`.
static const struct Flag *flag_at(const struct Command *command, uint32_t index) {
    uint32_t i = 0;
    for (const struct Flag *f = command->flags; f && (f->name || f->help); f++, i++) {
        if (i == index)
            return f;
    }
    for (const struct Flag *f = COMMON_FLAGS; f->name || f->help; f++, i++) {
        if (i == index)
            return f;
    }
    return NULL;
}

static const struct Flag *find_flag(const struct Command *command, const char *name, size_t length, uint32_t *index) {
    const struct Flag *f;
    for (uint32_t i = 0; (f = flag_at(command, i)); i++) {
        if (f->name && strlen(f->name) == length && memcmp(f->name, name, length) == 0) {
            *index = i;
            return f;
        }
    }
    return NULL;
}

static const struct Flag *find_short(const struct Command *command, char letter, uint32_t *index) {
    const struct Flag *f;
    for (uint32_t i = 0; (f = flag_at(command, i)); i++) {
        if (f->name && f->short_name == letter) {
            *index = i;
            return f;
        }
    }
    return NULL;
}

// ---- Near misses ----

// Edit distance with swaps of neighbours; names are short, so three rows on the stack do.
static uint32_t distance(const char *a, size_t n_a, const char *b, size_t n_b) {
    enum { MOST = 40 };
    if (n_a >= MOST || n_b >= MOST)
        return MOST;
    uint32_t rows[3][MOST + 1];
    for (uint32_t j = 0; j <= n_b; j++)
        rows[0][j] = j;
    for (uint32_t i = 1; i <= n_a; i++) {
        uint32_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (uint32_t j = 1; j <= n_b; j++) {
            uint32_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            best = above[j] + 1 < best ? above[j] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n_a % 3][n_b];
}

static bool is_near(uint32_t d, size_t length) { return d <= (length < 6 ? 1 : length < 10 ? 2 : 3); }

// What other programs call it.
static const struct {
    const char *theirs, *ours; // ours: a flag, perhaps with its value
} SYNONYMS[] = {{"learning-rate", "lr"},
                {"lr-scheduler-type", "schedule"},
                {"warmup-steps", "warmup"},
                {"num-epochs", "epochs"},
                {"num-train-epochs", "epochs"},
                {"max-steps", "steps"},
                {"batch-size", "batch"},
                {"per-device-train-batch-size", "batch"},
                {"gradient-accumulation-steps", "batch"},
                {"max-seq-length", "context"},
                {"max-length", "context"},
                {"ctx-size", "context"},
                {"output-dir", "out"},
                {"bf16", "type bf16"},
                {"load-in-4bit", "method qlora"},
                {"n-predict", "max-tokens"},
                {"max-new-tokens", "max-tokens"},
                {"repetition-penalty", "repeat-penalty"}};

// The flag of a synonym, or of a name with underscores; NULL: neither.
static const char *synonym(const struct Command *command, const char *name, size_t length) {
    char dashed[40];
    if (length >= sizeof dashed)
        return NULL;
    for (size_t i = 0; i < length; i++)
        dashed[i] = name[i] == '_' ? '-' : name[i];
    dashed[length] = 0;
    const char *ours = dashed;
    for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++)
        if (strcmp(SYNONYMS[i].theirs, dashed) == 0)
            ours = SYNONYMS[i].ours;
    uint32_t index;
    const struct Flag *flag = find_flag(command, ours, strcspn(ours, " "), &index);
    const char *value = strchr(ours, ' ');
    if (!flag || !args_takes(command, flag) || (value && !strstr(flag->value, value + 1)))
        return NULL;
    return ours == dashed ? flag->name : ours;
}

// What may have been meant: all flags that begin so ("--temp" for --temperature), else the nearest one. "" when none is near.
static void meant_flags(const struct Command *command, const char *name, size_t length, char *out, size_t room) {
    const char *best = NULL;
    uint32_t least = UINT32_MAX;
    const struct Flag *f;
    size_t used = 0;
    out[0] = 0;
    const char *ours = synonym(command, name, length);
    if (ours) {
        snprintf(out, room, "--%s", ours);
        return;
    }
    for (uint32_t i = 0; (f = flag_at(command, i)); i++) {
        if (!f->name || !args_takes(command, f))
            continue;
        uint32_t d = distance(name, length, f->name, strlen(f->name));
        if (length >= 3 && strncmp(f->name, name, length) == 0 && used < room)
            used += (size_t)snprintf(out + used, room - used, "%s--%s", used ? " or " : "", f->name);
        if (d < least) {
            least = d;
            best = f->name;
        }
    }
    if (!used && is_near(least, length))
        snprintf(out, room, "--%s", best);
}

const struct Command *args_find_command(const char *name) {
    for (const struct Command *c = COMMANDS; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

const char *args_nearest_command(const char *name) {
    const char *best = NULL;
    uint32_t least = UINT32_MAX;
    for (const struct Command *c = COMMANDS; c->name; c++) {
        uint32_t d = distance(name, strlen(name), c->name, strlen(c->name));
        if (d < least) {
            least = d;
            best = c->name;
        }
    }
    return is_near(least, strlen(name)) ? best : NULL;
}

// ---- Parsing ----

static bool parse_int(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return false;
    *out = value;
    return true;
}

static bool parse_float(const char *text, double *out) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || (errno == ERANGE && fabs(value) > 1) || !isfinite(value))
        return false;
    *out = value;
    return true;
}

// The choice as the table has it, whatever capitals were typed (Q4_K_M is how others print it); NULL: it is none.
static const char *find_choice(const char *choices, const char *value, size_t *length) {
    *length = strlen(value);
    for (const char *c = choices; c;) {
        const char *bar = strchr(c, '|');
        size_t n = bar ? (size_t)(bar - c) : strlen(c);
        if (n == *length && strncasecmp(c, value, n) == 0)
            return c;
        c = bar ? bar + 1 : NULL;
    }
    return NULL;
}

static bool check_value(const struct Command *command, const struct Flag *flag, const char *value) {
    bool limited = flag->min != 0 || flag->max != 0;
    int64_t whole;
    double number = 0;
    size_t length;
    switch (flag->kind) {
    case ARG_SWITCH:
    case ARG_TEXT:
    case ARG_LIST:
        return true;
    case ARG_FILE: // "$UNSET": an empty name would be the working directory
        return *value || fail("%s: --%s is empty; a name is expected: --%s %s", command->name, flag->name, flag->name,
                              flag->value);
    case ARG_CHOICE:
        return find_choice(flag->value, value, &length) ||
               fail("%s: --%s is %s, not '%s'", command->name, flag->name, flag->value, value);
    case ARG_INT:
        if (!parse_int(value, &whole))
            return fail("%s: --%s takes a whole number, not '%s': %s", command->name, flag->name, value, flag->help);
        number = (double)whole;
        break;
    case ARG_FLOAT:
        if (!parse_float(value, &number))
            return fail("%s: --%s takes a number, not '%s'", command->name, flag->name, value);
        break;
    }
    if (limited && !(number >= flag->min && number <= flag->max))
        return fail("%s: --%s is between %.15g and %.15g, not %s", command->name, flag->name, flag->min, flag->max,
                    value);
    return true;
}

static bool unknown_flag(const struct Command *command, const char *arg, size_t length) {
    char meant[160] = "";
    if (arg[1] == '-')
        meant_flags(command, arg + 2, length - 2, meant, sizeof meant);
    if (meant[0])
        return fail("%s: there is no flag %.*s; is %s meant?", command->name, (int)length, arg, meant);
    return fail("%s: there is no flag %.*s; `vkmoe %s --help` lists them", command->name, (int)length, arg,
                command->name);
}

// One flag at argv[*i], its value included.
static bool parse_flag(struct Args *args, int argc, char **argv, int *i) {
    const struct Command *command = args->command;
    const char *arg = argv[*i], *equals = NULL;
    const struct Flag *flag;
    uint32_t index = 0;
    size_t length = strlen(arg);
    if (arg[1] == '-') {
        equals = strchr(arg, '=');
        if (equals)
            length = (size_t)(equals - arg);
        flag = find_flag(command, arg + 2, length - 2, &index);
    } else {
        flag = arg[2] ? NULL : find_short(command, arg[1], &index);
    }
    if (!flag || !args_takes(command, flag))
        return unknown_flag(command, arg, length);
    if (args->values[index] && flag->kind != ARG_LIST)
        return fail("%s: --%s is given twice%s", command->name, flag->name,
                    flag->value && strcmp(flag->value, "FILES") == 0 ? "; several files are written with commas: A,B"
                                                                     : "");
    if (flag->kind == ARG_SWITCH) {
        if (equals)
            return fail("%s: --%s takes no value", command->name, flag->name);
        args->values[index] = "";
        return true;
    }
    const char *value = equals ? equals + 1 : NULL;
    if (!value) {
        uint32_t other;
        bool at_end = *i + 1 >= argc;
        const char *next = at_end ? NULL : argv[*i + 1];
        if (at_end || (next[0] == '-' && next[1] == '-' && find_flag(command, next + 2, strlen(next + 2), &other)))
            return fail("%s: --%s needs a value: --%s %s", command->name, flag->name, flag->name, flag->value);
        value = next;
        (*i)++;
    }
    if (!check_value(command, flag, value))
        return false;
    if (flag->kind == ARG_LIST) {
        if (args->n_list == ARGS_MAX_LIST)
            return fail("%s: --%s is given more than %u times", command->name, flag->name, (unsigned)ARGS_MAX_LIST);
        args->list[args->n_list].flag = flag;
        args->list[args->n_list++].value = value;
    }
    args->values[index] = value;
    if (flag->kind == ARG_CHOICE) {
        size_t n;
        const char *choice = find_choice(flag->value, value, &n);
        assert(n < ARGS_MAX_CHOICE);
        args->values[index] = memcpy(args->choices[index], choice, n); // a zero is behind it
    }
    return true;
}

bool args_parse(struct Args *args, const struct Command *command, int argc, char **argv) {
    memset(args, 0, sizeof *args);
    args->command = command;
    args->words = argv;
    args->n_words = (uint32_t)argc;
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (!only_operands && strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (!only_operands && arg[0] == '-' && arg[1]) {
            if (!parse_flag(args, argc, argv, &i))
                return false;
        } else if (args->n_operands == command->max_operands) {
            return command->max_operands ? fail("%s: '%s' is one argument too many: vkmoe %s %s", command->name, arg,
                                                command->name, command->operands)
                                         : fail("%s: takes no arguments, but '%s' is given", command->name, arg);
        } else {
            args->operands[args->n_operands++] = arg;
        }
    }
    if (args_switch(args, "help") || args_switch(args, "version"))
        return true;
    if (args->n_operands < command->min_operands)
        return fail("%s: %s expected: vkmoe %s %s", command->name,
                    args->n_operands ? "one argument more" : "an argument is", command->name, command->operands);
    const struct Flag *f;
    for (uint32_t i = 0; (f = flag_at(command, i)); i++) {
        assert(i < ARGS_MAX_FLAGS);
        if (f->required && !args->values[i])
            return fail("%s: --%s %s is needed", command->name, f->name, f->value);
    }
    return true;
}

// ---- Values ----

static const char *value_of(const struct Args *args, const char *name, const struct Flag **flag) {
    uint32_t index = 0;
    *flag = find_flag(args->command, name, strlen(name), &index);
    assert(*flag);
    return args->values[index];
}

const struct Flag *args_flag(const struct Args *args, const char *name, uint32_t *index) {
    return find_flag(args->command, name, strlen(name), index);
}

bool args_given(const struct Args *args, const char *name) {
    const struct Flag *flag;
    return value_of(args, name, &flag) != NULL;
}

bool args_switch(const struct Args *args, const char *name) { return args_given(args, name); }

const char *args_text(const struct Args *args, const char *name) {
    const struct Flag *flag;
    const char *value = value_of(args, name, &flag);
    return value ? value : flag->fallback;
}

uint32_t args_list(const struct Args *args, const char *name, const char *values[ARGS_MAX_LIST]) {
    const struct Flag *flag;
    uint32_t n = 0;
    value_of(args, name, &flag);
    for (uint32_t i = 0; i < args->n_list; i++)
        if (args->list[i].flag == flag)
            values[n++] = args->list[i].value;
    return n;
}

int64_t args_int(const struct Args *args, const char *name) {
    const char *text = args_text(args, name);
    int64_t value = 0;
    bool whole = text && parse_int(text, &value);
    assert(whole);
    (void)whole;
    return value;
}

double args_float(const struct Args *args, const char *name) {
    const char *text = args_text(args, name);
    double value = 0;
    bool number = text && parse_float(text, &value);
    assert(number);
    (void)number;
    return value;
}

bool args_choice(const struct Args *args, const char *name, const char *choice) {
    const struct Flag *flag;
    value_of(args, name, &flag);
    size_t length;
    assert(find_choice(flag->value, choice, &length));
    (void)length;
    const char *value = args_text(args, name);
    return value && strcmp(value, choice) == 0;
}

static char wrong_use[512]; // its line; a later one is about something else

bool args_good(bool ok) {
    if (!ok)
        snprintf(wrong_use, sizeof wrong_use, "%s", fail_last());
    return ok;
}

bool args_were_wrong(void) { return wrong_use[0] && strncmp(wrong_use, fail_last(), sizeof wrong_use - 1) == 0; }

int args_wrong(const struct Args *args, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char text[512];
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fail("%s: %s", args->command->name, text);
    return EXIT_USAGE;
}

// ---- Help ----

enum { HELP_COLUMN = 26, OPERANDS_COLUMN = 18, SUMMARY_COLUMN = 33 };

static void help_flag(const struct Flag *f, FILE *to, uint32_t width) {
    if (!f->name) {
        fprintf(to, "\n%s%s%s\n", term_paint(to, PAINT_BOLD), f->help, term_paint(to, PAINT_NONE));
        return;
    }
    char head[160], text[1024], letter[8] = "    ";
    if (f->short_name)
        snprintf(letter, sizeof letter, "-%c, ", f->short_name);
    snprintf(head, sizeof head, "  %s--%s%s%s", letter, f->name, f->kind == ARG_SWITCH ? "" : " ",
             f->kind == ARG_SWITCH ? "" : f->value);
    snprintf(text, sizeof text, "%s%s%s%s", f->help,
             f->fallback   ? " (default "
             : f->required ? " (needed)"
                           : "",
             f->fallback ? f->fallback : "", f->fallback ? ")" : "");
    fputs(head, to);
    if (strlen(head) + 2 > HELP_COLUMN)
        fputc('\n', to);
    fprintf(to, "%*s", strlen(head) + 2 > HELP_COLUMN ? HELP_COLUMN : HELP_COLUMN - (int)strlen(head), "");
    term_print_wrapped(to, text, HELP_COLUMN, width);
}

void args_help(const struct Command *command, FILE *to) {
    uint32_t width = term_width(to);
    width = width > 110 ? 110 : width < 60 ? 60 : width;
    const char *bold = term_paint(to, PAINT_BOLD), *none = term_paint(to, PAINT_NONE);
    if (!command) {
        fprintf(to, "vkmoe trains and runs DeepSeekMoE language models on any Vulkan 1.3 device.\n\n");
        for (const struct Command *c = COMMANDS; c->name; c++) {
            fprintf(to, "  %svkmoe %-9s%s ", bold, c->name, none);
            if (strlen(c->name) <= 9 && strlen(c->operands) < SUMMARY_COLUMN - OPERANDS_COLUMN) {
                fprintf(to, "%-*s", SUMMARY_COLUMN - OPERANDS_COLUMN, c->operands);
            } else { // the summary begins on a line of its own
                term_print_wrapped(to, c->operands, OPERANDS_COLUMN, width);
                fprintf(to, "%*s", SUMMARY_COLUMN, "");
            }
            term_print_wrapped(to, c->summary, SUMMARY_COLUMN, width);
        }
        fprintf(to,
                "\nMODEL is a Hugging Face folder, a .gguf file or, where no weights are needed, a preset.\n"
                "`vkmoe COMMAND --help` tells more, with an example. Exit status: 0 done, 1 failed, 2 wrong use.\n");
        return;
    }
    fprintf(to, "%svkmoe %s %s%s\n  %s\n", bold, command->name, command->operands, none, command->summary);
    if (command->flags && command->flags->name)
        fprintf(to, "\n%sFlags%s\n", bold, none);
    for (const struct Flag *f = command->flags; f && (f->name || f->help); f++)
        help_flag(f, to, width);
    for (const struct Flag *f = COMMON_FLAGS; f->name || f->help; f++)
        if (args_takes(command, f))
            help_flag(f, to, width);
    fprintf(to, "\n%sExample%s\n", bold, none);
    for (const char *line = command->example; line;) {
        const char *end = strchr(line, '\n');
        fprintf(to, "  %.*s\n", end ? (int)(end - line) : (int)strlen(line), line);
        line = end ? end + 1 : NULL;
    }
}

const char **args_command_line(const struct Args *args) {
    const char **line = xcalloc(args->n_words + 2, sizeof *line);
    line[0] = "vkmoe";
    line[1] = args->command->name;
    for (uint32_t i = 0; i < args->n_words; i++)
        line[i + 2] = args->words[i];
    return line;
}
