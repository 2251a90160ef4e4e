// Modules with their order changed, from SPIR-V: for tests of what only a card's order of subgroups and workgroups would show. lavapipe runs the subgroups of a
// workgroup one behind the other, each up to its next barrier, so of two that want a barrier between them it shows one direction alone: reversed, the other.
#pragma once
#include "runtime/kernel.h"

// The module with its workgroups and subgroups counted from the other end: the first takes what was the last one's work. Words are malloc'ed.
struct KernelInfo reorder_reversed(const struct KernelInfo *k);
// How many barriers of a workgroup stand in it, and the module without barrier `i` of them.
uint32_t reorder_barriers(const struct KernelInfo *k);
struct KernelInfo reorder_without(const struct KernelInfo *k, uint32_t i);
