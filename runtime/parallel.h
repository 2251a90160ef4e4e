// Work on the host's cores, for loops over rows that are long enough to be worth the threads.
#pragma once
#include "runtime/base.h"

// Calls work(context, first, end) for ranges that cover [0, n) once, on as many threads as there are cores (16 at most), the caller's among
// them; ranges are multiples of `grain`, the last one perhaps not. Returns when all are done. What `work` does must not depend on the
// cut. It must not call fail() or warn(): it leaves its findings in the context.
void parallel_for(uint64_t n, uint64_t grain, void (*work)(void *context, uint64_t first, uint64_t end), void *context);
