// Regular expressions by PCRE2, on the heap that ends the program where it is exhausted (base.h): a pattern that does not compile is wrong,
// never short of memory, and contexts are never NULL.
#pragma once
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

// For every context; codes and match data take theirs over. Made once, never freed.
pcre2_general_context *regex_heap(void);
