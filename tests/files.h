// What tests of files share.
#pragma once
#include "runtime/base.h"
#include <stdbool.h>

// `ok` is false, and the line about it says `words`.
bool refused(bool ok, const char *words);
// Removes a folder and all that is in it.
void remove_tree(const char *path);
