// Main memory that can be had right now.
#pragma once
#include "runtime/base.h"

// What the machine has to give, and no more than what the limits of this process's control groups leave. `root` stands before /proc and /sys: "",
// but in a test. UINT64_MAX: not known.
uint64_t hostmem_available_bytes(const char *root);
// Of the memory that the firmware keeps from the system for an integrated card at this address ("0000:c5:00.0"), what is free; 0: none, or not known.
uint64_t hostmem_carved_out_bytes(const char *root, const char *pci);
