// `vkmoe completion bash|zsh|fish`: a script for the shell, written from the table of commands, flags and choices. Each script is a short piece
// of that shell's own language round lists that are printed here.
#include "cli/commands.h"
#include <string.h>

// Calls `each` for the command's own flags and then the common ones.
static void flags_walk(const struct Command *c, void (*each)(const struct Command *, const struct Flag *)) {
    for (const struct Flag *f = c->flags; f && (f->name || f->help); f++)
        if (f->name)
            each(c, f);
    for (const struct Flag *f = COMMON_FLAGS; f->name || f->help; f++)
        if (f->name)
            each(c, f);
}

// Text inside single quotes, for the shells and for zsh's specifications, which know brackets and colons.
static void print_quoted(const char *text, const char *escaped) {
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr(escaped, *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void print_choices(const char *choices) {
    for (; *choices; choices++)
        putchar(*choices == '|' ? ' ' : *choices);
}

// What its operand is: the name of a file, or one of a few words.
static const char *operand_words(const struct Command *c) {
    return strcmp(c->name, "completion") == 0 ? "bash zsh fish"
           : strcmp(c->name, "bench") == 0    ? "kernels shader device static"
           : strcmp(c->name, "man") == 0      ? NULL
                                              : "";
}

// ---- bash

static void bash_flag(const struct Command *c, const struct Flag *f) {
    (void)c;
    printf(" --%s", f->name);
    if (f->short_name)
        printf(" -%c", f->short_name);
}
static void bash_value(const struct Command *c, const struct Flag *f) {
    if (f->kind == ARG_SWITCH)
        return;
    printf("    '%s --%s'", c->name, f->name);
    if (f->short_name)
        printf(" | '%s -%c'", c->name, f->short_name);
    fputs(") ", stdout);
    if (f->kind == ARG_CHOICE) {
        fputs("words='", stdout);
        print_choices(f->value);
        fputs("' ;;\n", stdout);
    } else {
        fputs(f->kind == ARG_FILE ? "files=1 ;;\n" : "return ;;\n", stdout);
    }
}

static void print_commands(void) {
    for (const struct Command *c = COMMANDS; c->name; c++)
        printf("%s%s", c == COMMANDS ? "" : " ", c->name);
}

static void print_bash(void) {
    // COMP_WORDBREAKS cuts --flag=value at the sign: then the flag stands two words back.
    fputs("# vkmoe completion bash: source this, or put it into a folder of bash-completion.\n"
          "_vkmoe() {\n"
          "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words='' "
          "files=''\n"
          "  COMPREPLY=()\n"
          "  if [[ $cur == '=' ]]; then\n"
          "    cur=''\n"
          "  elif [[ $prev == '=' && $COMP_CWORD -ge 2 ]]; then\n"
          "    prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "  fi\n"
          "  if [[ $COMP_CWORD -le 1 ]]; then\n"
          "    COMPREPLY=($(compgen -W '",
          stdout);
    print_commands();
    fputs(" help --help --version' -- \"$cur\"))\n"
          "    return\n"
          "  fi\n"
          "  case \"$command $prev\" in\n",
          stdout);
    for (const struct Command *c = COMMANDS; c->name; c++)
        flags_walk(c, bash_value);
    fputs("    *)\n"
          "      case $command in\n",
          stdout);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        const char *words = operand_words(c);
        printf("        %s) ", c->name);
        if (words && !*words)
            fputs("files=1", stdout);
        else if (words)
            printf("words='%s'", words);
        else {
            fputs("words='", stdout);
            print_commands();
            putchar('\'');
        }
        fputs("; [[ $cur != -* ]] || { files=''; words='", stdout);
        flags_walk(c, bash_flag);
        fputs("'; } ;;\n", stdout);
    }
    fputs("        help) words='", stdout);
    print_commands();
    fputs("' ;;\n"
          "      esac ;;\n"
          "  esac\n"
          "  if [[ $files ]]; then\n"
          "    compopt -o filenames 2>/dev/null\n"
          "    local IFS=$'\\n'\n"
          "    COMPREPLY=($(compgen -f -- \"$cur\"))\n"
          "  else\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "  fi\n"
          "}\n"
          "complete -F _vkmoe vkmoe\n",
          stdout);
}

// ---- zsh

static void zsh_flag(const struct Command *c, const struct Flag *f) {
    (void)c;
    for (int letter = f->short_name ? 0 : 1; letter < 2; letter++) {
        char name[64];
        if (letter == 0)
            snprintf(name, sizeof name, "-%c", f->short_name);
        else
            snprintf(name, sizeof name, "--%s%s", f->name, f->kind == ARG_SWITCH ? "" : "=");
        printf("        '%s%s[", f->kind == ARG_LIST ? "*" : "", name);
        print_quoted(f->help, "[]");
        putchar(']');
        if (f->kind == ARG_CHOICE) {
            fputs(":value:(", stdout);
            print_choices(f->value);
            putchar(')');
        } else if (f->kind != ARG_SWITCH) {
            fputs(f->kind == ARG_FILE ? ":file:_files" : ":value: ", stdout);
        }
        fputs("' \\\n", stdout);
    }
}

static void print_zsh(void) {
    fputs("#compdef vkmoe\n"
          "# vkmoe completion zsh: put this as _vkmoe into a folder of $fpath.\n"
          "_vkmoe() {\n"
          "  local -a commands\n"
          "  commands=(\n",
          stdout);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        printf("    '%s:", c->name);
        print_quoted(c->summary, ":");
        fputs("'\n", stdout);
    }
    fputs("  )\n"
          "  if (( CURRENT == 2 )); then\n"
          "    _describe command commands\n"
          "    return\n"
          "  fi\n"
          "  local command=$words[2]\n"
          "  shift words\n"
          "  (( CURRENT-- ))\n"
          "  case $command in\n",
          stdout);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        const char *words = operand_words(c);
        printf("    %s)\n      _arguments \\\n", c->name);
        flags_walk(c, zsh_flag);
        if (words && !*words)
            fputs("        '*:model:_files' ;;\n", stdout);
        else {
            fputs("        '*:word:(", stdout);
            if (words)
                fputs(words, stdout);
            else
                print_commands();
            fputs(")' ;;\n", stdout);
        }
    }
    fputs("  esac\n"
          "}\n"
          "_vkmoe \"$@\"\n",
          stdout);
}

// ---- fish

static void fish_flag(const struct Command *c, const struct Flag *f) {
    printf("complete -c vkmoe -n '__fish_seen_subcommand_from %s' -l %s", c->name, f->name);
    if (f->short_name)
        printf(" -s %c", f->short_name);
    if (f->kind == ARG_CHOICE) {
        fputs(" -x -a '", stdout);
        print_choices(f->value);
        putchar('\'');
    } else if (f->kind != ARG_SWITCH) {
        fputs(f->kind == ARG_FILE ? " -r -F" : " -x", stdout);
    }
    fputs(" -d '", stdout);
    for (const char *t = f->help; *t; t++)
        printf(*t == '\'' || *t == '\\' ? "\\%c" : "%c", *t);
    fputs("'\n", stdout);
}

static void print_fish(void) {
    fputs("# vkmoe completion fish: put this as vkmoe.fish into ~/.config/fish/completions.\n", stdout);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        const char *words = operand_words(c);
        printf("complete -c vkmoe -n __fish_use_subcommand -f -a %s -d '", c->name);
        for (const char *t = c->summary; *t; t++)
            printf(*t == '\'' || *t == '\\' ? "\\%c" : "%c", *t);
        fputs("'\n", stdout);
        if (!words || *words) {
            printf("complete -c vkmoe -n '__fish_seen_subcommand_from %s' -f -a '", c->name);
            if (words)
                fputs(words, stdout);
            else
                print_commands();
            fputs("'\n", stdout);
        }
        flags_walk(c, fish_flag);
    }
}

int cmd_completion(const struct Args *args) {
    static const struct {
        const char *name;
        void (*print)(void);
    } SHELLS[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    for (size_t i = 0; i < sizeof SHELLS / sizeof *SHELLS; i++)
        if (strcmp(args->operands[0], SHELLS[i].name) == 0) {
            SHELLS[i].print();
            return EXIT_DONE;
        }
    return args_wrong(args, "there are scripts for bash, zsh and fish, not for '%s'", args->operands[0]);
}
