// Files and folders that are made under another name, NAME.tmpPID, until they are whole. One that is dropped goes, with what a folder holds; so do
// all that are left where the program ends by itself (temporaries_drop). What a killed process left beside NAME is removed with a warning
// when NAME is made again. Any thread may make one.
#pragma once
#include "runtime/base.h"

struct Temporary {
    char *path, *final; // path NULL: none
    struct Temporary *next;
};

// A descriptor to write to, which is the caller's to close; -1 after a message.
int temporary_file(struct Temporary *t, const char *final);
void temporary_name(struct Temporary *t, const char *final); // of a file or folder that somebody else is to make there
// Gives it its own name. False, with errno and without a message, where that failed: it is dropped then.
bool temporary_keep(struct Temporary *t);
void temporary_drop(struct Temporary *t); // nothing happens where there is none
// A file, a folder of files, or a link, which goes alone: what it leads to is somebody's. Only what a signal handler may do.
void path_remove(const char *path);
// All of them, of whatever thread. Only what a signal handler may do, and without the heap; nobody can make another one afterwards.
void temporaries_drop(void);
