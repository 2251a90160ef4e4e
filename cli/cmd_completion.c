// `vkmoe completion bash|zsh|fish`: a script for the shell, written from the table of commands, flags and choices. Each script is a short piece
// of that shell's own language round lists that are printed here.
#include "cli/commands.h"
#include "eval/task.h"
#include "model/config.h"
#include "model/template.h"
#include <assert.h>
#include <string.h>

// Calls `each` for the command's own flags and then the common ones.
static void flags_walk(const struct Command *c, void (*each)(const struct Command *, const struct Flag *)) {
    for (const struct Flag *f = c->flags; f && (f->name || f->help); f++)
        if (f->name)
            each(c, f);
    for (const struct Flag *f = COMMON_FLAGS; f->name || f->help; f++)
        if (f->name && args_takes(c, f))
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

// Words with bars or ", " between them.
static void print_choices(const char *choices) {
    for (; *choices; choices++)
        if (choices[0] != ',' || choices[1] != ' ')
            putchar(*choices == '|' ? ' ' : *choices);
}

// What may stand at a place: words, names of files, or both.
struct Offer {
    const char *words; // NULL: none
    bool files, list;  // list: several words by commas
};

static const char *joined(char *out, size_t room, const char *first, const char *(*at)(size_t)) {
    size_t used = (size_t)snprintf(out, room, "%s", first);
    const char *name;
    for (size_t i = 0; (name = at(i)) && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", used ? " " : "", name);
    assert(used < room);
    return out;
}
static const char *command_at(size_t i) { return COMMANDS[i].name; }
static const char *task_at(size_t i) { return TASKS[i].name; }

static struct Offer value_offer(const struct Flag *f) {
    static char tasks[512];
    if (f->kind == ARG_CHOICE)
        return (struct Offer){f->value, false, false};
    if (strcmp(f->name, "tasks") == 0)
        return (struct Offer){joined(tasks, sizeof tasks, "all", task_at), false, true};
    if (strcmp(f->name, "template") == 0)
        return (struct Offer){template_names(), true, false};
    if (strcmp(f->name, "preset") == 0)
        return (struct Offer){config_preset_names(), true, false};
    return (struct Offer){NULL, f->kind == ARG_FILE, false};
}

static const char BENCHES[] = "model train kernels shader device static", MODEL_BENCHES[] = "model train";

static struct Offer operand_offer(const struct Command *c) {
    static char commands[512];
    if (c->run == cmd_completion)
        return (struct Offer){"bash zsh fish", false, false};
    if (c->run == cmd_man)
        return (struct Offer){joined(commands, sizeof commands, "", command_at), false, false};
    if (c->run == cmd_bench)
        return (struct Offer){BENCHES, false, false};
    if (c->run == cmd_eval)
        return (struct Offer){"report tasks", true, false};
    if (c->run == cmd_info || c->run == cmd_train)
        return (struct Offer){config_preset_names(), true, false};
    return (struct Offer){NULL, c->max_operands > 0, false};
}

// ---- bash

static void bash_flag(const struct Command *c, const struct Flag *f) {
    (void)c;
    printf(" --%s", f->name);
    if (f->short_name)
        printf(" -%c", f->short_name);
}
static void bash_offer(struct Offer o) {
    if (o.words) {
        fputs("words='", stdout);
        print_choices(o.words);
        putchar('\'');
    }
    printf("%s%s", o.files ? " files=1" : "", o.list ? " list=1" : "");
}
static void bash_value(const struct Command *c, const struct Flag *f) {
    if (f->kind == ARG_SWITCH)
        return;
    printf("    '%s --%s'", c->name, f->name);
    if (f->short_name)
        printf(" | '%s -%c'", c->name, f->short_name);
    fputs(") ", stdout);
    struct Offer o = value_offer(f);
    if (!o.words && !o.files)
        fputs("return", stdout);
    bash_offer(o);
    fputs(" ;;\n", stdout);
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
          "files='' list=''\n"
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
        printf("        %s) ", c->name);
        if (c->run == cmd_bench) { // the second word says what may follow it
            fputs("if [[ $COMP_CWORD == 2 ]]; then ", stdout);
            bash_offer(operand_offer(c));
            fputs("; else case ${COMP_WORDS[2]} in model | train) ", stdout);
            bash_offer((struct Offer){config_preset_names(), true, false});
            fputs(" ;; shader) files=1 ;; esac; fi", stdout);
        } else {
            struct Offer o = operand_offer(c);
            if (!o.words && !o.files)
                putchar(':');
            bash_offer(o);
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
          "  local before='' found\n"
          "  [[ ! $list || $cur != *,* ]] || before=${cur%,*},\n"
          "  found=$(compgen -P \"$before\" -W \"$words\" -- \"${cur#\"$before\"}\")\n"
          "  local IFS=$'\\n'\n"
          "  COMPREPLY=($found)\n"
          "  if [[ $files ]]; then\n"
          "    compopt -o filenames 2>/dev/null\n"
          "    COMPREPLY+=($(compgen -f -- \"$cur\"))\n"
          "  fi\n"
          "}\n"
          "complete -F _vkmoe vkmoe\n",
          stdout);
}

// ---- zsh

static void zsh_offer(struct Offer o) {
    if (o.list)
        fputs(":value: _values -s , value ", stdout);
    else if (o.words && o.files)
        fputs(":value:{_alternative \"words:word:(", stdout);
    else if (o.words)
        fputs(":value:(", stdout);
    else
        fputs(o.files ? ":file:_files" : ":value: ", stdout);
    if (o.words)
        print_choices(o.words);
    if (o.words && !o.list)
        fputs(o.files ? ")\" \"files:file:_files\"}" : ")", stdout);
}

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
        if (f->kind != ARG_SWITCH)
            zsh_offer(value_offer(f));
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
        printf("    %s)\n      _arguments \\\n", c->name);
        flags_walk(c, zsh_flag);
        fputs(c->run == cmd_bench ? "        '1" : "        '*", stdout);
        zsh_offer(operand_offer(c));
        if (c->run == cmd_bench) {
            fputs("' '*", stdout);
            zsh_offer((struct Offer){config_preset_names(), true, false});
        }
        fputs("' ;;\n", stdout);
    }
    fputs("  esac\n"
          "}\n"
          "_vkmoe \"$@\"\n",
          stdout);
}

// ---- fish

static void fish_offer(struct Offer o, const char *with_files, const char *without) {
    fputs(o.files ? with_files : without, stdout);
    if (!o.words)
        return;
    fputs(" -a '", stdout);
    print_choices(o.words);
    putchar('\'');
}

static void fish_flag(const struct Command *c, const struct Flag *f) {
    printf("complete -c vkmoe -n '__fish_seen_subcommand_from %s' -l %s", c->name, f->name);
    if (f->short_name)
        printf(" -s %c", f->short_name);
    if (f->kind != ARG_SWITCH)
        fish_offer(value_offer(f), " -r -F", " -x");
    fputs(" -d '", stdout);
    for (const char *t = f->help; *t; t++)
        printf(*t == '\'' || *t == '\\' ? "\\%c" : "%c", *t);
    fputs("'\n", stdout);
}

static void print_fish(void) {
    fputs("# vkmoe completion fish: put this as vkmoe.fish into ~/.config/fish/completions.\n", stdout);
    for (const struct Command *c = COMMANDS; c->name; c++) {
        printf("complete -c vkmoe -n __fish_use_subcommand -f -a %s -d '", c->name);
        for (const char *t = c->summary; *t; t++)
            printf(*t == '\'' || *t == '\\' ? "\\%c" : "%c", *t);
        fputs("'\n", stdout);
        struct Offer o = operand_offer(c);
        const char *seen = "complete -c vkmoe -n '__fish_seen_subcommand_from ";
        if (o.words) {
            printf("%s%s", seen, c->name);
            if (c->run == cmd_bench)
                printf("; and not __fish_seen_subcommand_from %s", BENCHES);
            putchar('\'');
            fish_offer(o, " -F", " -f");
            putchar('\n');
        }
        if (c->run == cmd_bench) {
            printf("%s%s; and __fish_seen_subcommand_from %s'", seen, c->name, MODEL_BENCHES);
            fish_offer((struct Offer){config_preset_names(), true, false}, " -F", " -f");
            putchar('\n');
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
