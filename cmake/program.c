// The program itself: everything is in the rooms, so that the tests can call the command line too.
#include "cli/args.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
