// Faults on purpose, for test programs that tests/CMakeLists.txt links with --wrap: what the rooms ask of the file system, of the heap and of Vulkan
// goes through here, is counted, and one call fails as planned. Nothing of this is in the program itself.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum FaultKind { FAULT_NONE, FAULT_FILE, FAULT_MEMORY, FAULT_VULKAN };
enum { FAULT_SHORT = -1 }; // in the place of errno: half of a write is done

struct FaultPlan {
    enum FaultKind kind; // of the calls that are counted
    uint64_t at;         // this one fails, from 1; 0: none
    int error;           // FILE: errno or FAULT_SHORT. VULKAN: which of the results that the call may give, from 0
    bool lasting;        // and so do all behind it (Vulkan: of the same name)
    const char *only;    // counts the calls of this name alone; NULL: all
    bool trace;          // keeps a FaultCall of each
};
struct FaultCall {
    const char *name;
    uint32_t n_results; // VULKAN
    uint64_t stack;     // hash of the callers
};
void fault_begin(const struct FaultPlan *plan);
// Calls counted since.
uint64_t fault_end(void);
bool fault_fired(void);                    // of the last plan
const char *fault_fired_name(void);        // the call that failed; "" when none did
int fault_fired_result(void);              // VULKAN: what it gave
const struct FaultCall *fault_trace(void); // the last plan's, as many as fault_end() said

// Files: what happens below `folder` is counted; with `log` every change is kept, until the next folder. NULL: nothing any more.
void fault_watch(const char *folder, bool log);

// A change of the file system, in the order of the calls.
enum FileChange { FILE_LINK, FILE_FOLDER, FILE_CUT, FILE_WRITE, FILE_SYNC, FILE_RENAME, FILE_UNLINK, FILE_MARK };
struct FileStep {
    enum FileChange change;
    char *path, *to; // below the folder: "out/metrics.jsonl"; `to` of a rename
    uint64_t offset; // of a write
    size_t bytes;
    uint8_t *data;
    uint64_t mark;
};
void fault_mark(uint64_t mark); // a step of the log that says how far the test is
const struct FileStep *fault_log(size_t *n);
