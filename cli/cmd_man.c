// `vkmoe man [COMMAND]`: the manual page in roff, made of the same table as --help. With --out all pages are written to a folder.
#include "cli/commands.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// Roff takes a dot or a quote at the beginning of a line, and backslashes and dashes anywhere, for its own.
static void put(FILE *to, const char *text) {
    for (const char *t = text; *t; t++) {
        if (t == text && (*t == '.' || *t == '\''))
            fputs("\\&", to);
        if (*t == '\\')
            fputs("\\e", to);
        else if (*t == '-')
            fputs("\\-", to);
        else if (*t == '|')
            fputs("|\\:", to); // a long list of choices may be broken here
        else
            fputc(*t, to);
    }
}

static void put_upper(FILE *to, const char *text) {
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), to);
}

static void put_title(FILE *to, const char *command) {
    fputs(".TH VKMOE", to);
    if (command) {
        fputs("\\-", to);
        put_upper(to, command);
    }
    fputs(" 1 \"\" \"vkmoe " VKMOE_VERSION "\" \"User Commands\"\n", to);
}

static void put_flag(FILE *to, const struct Flag *f) {
    if (!f->name) {
        fputs(".SS \"", to);
        put(to, f->help);
        fputs("\"\n", to);
        return;
    }
    fputs(".TP\n", to);
    if (f->short_name)
        fprintf(to, "\\fB\\-%c\\fR, ", f->short_name);
    fputs("\\fB\\-\\-", to);
    put(to, f->name);
    fputs("\\fR", to);
    if (f->kind != ARG_SWITCH) {
        fputs(" \\fI", to);
        put(to, f->value);
        fputs("\\fR", to);
    }
    fputc('\n', to);
    put(to, f->help);
    if (f->fallback) {
        fputs(" (default ", to);
        put(to, f->fallback);
        fputc(')', to);
    } else if (f->required) {
        fputs(" (needed)", to);
    }
    fputc('\n', to);
}

static void put_status(FILE *to) {
    fputs(".SH EXIT STATUS\n0: done.\n1: failed; standard error says why in one line.\n2: wrong use.\n", to);
}

static void page_command(FILE *to, const struct Command *c) {
    put_title(to, c->name);
    fputs(".SH NAME\nvkmoe\\-", to);
    put(to, c->name);
    fputs(" \\- ", to);
    put(to, c->summary);
    fputs("\n.SH SYNOPSIS\n\\fBvkmoe ", to);
    put(to, c->name);
    fputs("\\fR ", to);
    if (*c->operands) {
        fputs("\\fI", to);
        put(to, c->operands);
        fputs("\\fR ", to);
    }
    fputs("[\\fIFLAGS\\fR]\n.SH OPTIONS\n", to);
    for (const struct Flag *f = c->flags; f && (f->name || f->help); f++)
        put_flag(to, f);
    for (const struct Flag *f = COMMON_FLAGS; f->name || f->help; f++)
        if (args_takes(c, f))
            put_flag(to, f);
    put_status(to);
    fputs(".SH EXAMPLES\n.nf\n", to);
    for (const char *line = c->example; line;) {
        const char *end = strchr(line, '\n');
        char *one = xsprintf("%.*s", end ? (int)(end - line) : (int)strlen(line), line);
        put(to, one);
        fputc('\n', to);
        free(one);
        line = end ? end + 1 : NULL;
    }
    fputs(".fi\n.SH SEE ALSO\n.BR vkmoe (1)\n", to);
}

static void page_program(FILE *to) {
    put_title(to, NULL);
    fputs(".SH NAME\nvkmoe \\- trains and runs DeepSeekMoE and LLaMA\\-type language models on any Vulkan 1.3 device\n"
          ".SH SYNOPSIS\n\\fBvkmoe\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fIFLAGS\\fR]\n"
          ".SH DESCRIPTION\n\\fIMODEL\\fR is a Hugging Face folder, a .gguf file or, where no weights are needed, the "
          "name of "
          "a preset.\n"
          "Each command has a page of its own, and says the same with \\fB\\-\\-help\\fR.\n.SH COMMANDS\n",
          to);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        fputs(".TP\n.BR vkmoe\\-", to);
        put(to, c->name);
        fputs(" (1)\n", to);
        put(to, c->summary);
        fputc('\n', to);
    }
    fputs(".SH COMMON FLAGS\n", to);
    for (const struct Flag *f = COMMON_FLAGS + 1; f->name || f->help; f++) // without its heading
        put_flag(to, f);
    put_status(to);
    fputs(".SH SEE ALSO\n", to);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        fputs(".BR vkmoe\\-", to);
        put(to, c->name);
        fprintf(to, " (1)%s\n", c[1].name ? "," : "");
    }
}

static bool write_page(const char *folder, const struct Command *c) {
    char *name = c ? xsprintf("vkmoe-%s.1", c->name) : xstrdup("vkmoe.1"), *path = path_join(folder, name), *text;
    size_t bytes;
    FILE *to = text_begin(&text, &bytes);
    c ? page_command(to, c) : page_program(to);
    text_end(to);
    bool ok = file_write_atomic(path, text, bytes);
    free(text), free(path), free(name);
    return ok;
}

int cmd_man(const struct Args *args) {
    const char *folder = args_text(args, "out");
    const struct Command *c = args->n_operands ? args_find_command(args->operands[0]) : NULL;
    if (args->n_operands && !c)
        return args_wrong(args, "there is no command '%s'; `vkmoe --help` lists them", args->operands[0]);
    if (args->n_operands && folder)
        return args_wrong(args, "--out writes all pages: without a command");
    if (!folder) {
        c ? page_command(stdout, c) : page_program(stdout);
        return EXIT_DONE;
    }
    bool ok = dir_make(folder) && write_page(folder, NULL);
    for (c = COMMANDS; ok && c->name; c++)
        ok = write_page(folder, c);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
