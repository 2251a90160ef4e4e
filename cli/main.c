// From argv to a command and from its answer to an exit status. Nothing else in the program decides to exit.
#include "cli/args.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <string.h>

// What was printed into a full disk or a closed pipe has not been done.
static int finish(int status) {
    int error = fflush(stdout) != 0 ? errno : 0;
    if (error || ferror(stdout)) { // of an earlier write the reason is no longer known
        if (status == EXIT_DONE)
            fail("standard output cannot be written%s%s", error ? ": " : "", error ? strerror(error) : "");
        return status == EXIT_DONE ? EXIT_FAILED : status;
    }
    return status;
}

int cli_main(int argc, char **argv) {
    setlocale(LC_CTYPE, "");  // line editing in UTF-8; numbers keep their point
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is told as a full disk is
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        bool of_itself = argc > 2 && (strcmp(argv[2], "help") == 0 || strcmp(argv[2], "--help") == 0);
        const struct Command *about = argc > 2 && !of_itself ? args_find_command(argv[2]) : NULL;
        if (argc > 3) {
            fail("help: '%s' is one argument too many: vkmoe help [COMMAND]", argv[3]);
            return EXIT_USAGE;
        }
        if (argc > 2 && !about && !of_itself) {
            fail("there is no command '%s'; `vkmoe --help` lists them", argv[2]);
            return EXIT_USAGE;
        }
        args_help(about, stdout);
        return finish(EXIT_DONE);
    }
    if (strcmp(name, "--version") == 0) {
        printf("vkmoe %s\n", VKMOE_VERSION);
        return finish(EXIT_DONE);
    }
    const struct Command *command = args_find_command(name);
    if (!command) {
        const char *near = args_nearest_command(name);
        if (near)
            fail("there is no command '%s'; is '%s' meant?", name, near);
        else
            fail("there is no command '%s'; `vkmoe --help` lists them", name);
        return EXIT_USAGE;
    }
    struct Args args;
    if (!args_parse(&args, command, argc - 2, argv + 2))
        return EXIT_USAGE;
    if (args_switch(&args, "help")) {
        args_help(command, stdout);
        return finish(EXIT_DONE);
    }
    if (args_switch(&args, "version")) {
        printf("vkmoe %s\n", VKMOE_VERSION);
        return finish(EXIT_DONE);
    }
    int status = command->run(&args);
    return finish(status == EXIT_FAILED && args_were_wrong() ? EXIT_USAGE : status);
}
