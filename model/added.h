// Added tokens are looked for in the text itself, before anything else is cut: the leftmost match, and of those the longest.
// A tree of bytes.
#pragma once
#include "runtime/base.h"

enum { ADDED_MAX_BYTES = 1024 }; // of one token

struct AddedNode {
    uint32_t child, sibling; // 0: none
    uint32_t id;             // token that ends here, or UINT32_MAX
    uint8_t byte;
};
struct AddedTree {
    struct AddedNode *nodes; // [0] is the root
    uint32_t n, capacity;
    uint32_t by_first[256]; // children of the root
};

void added_tree_add(struct AddedTree *tree, const char *text, size_t bytes, uint32_t id); // 1 to ADDED_MAX_BYTES bytes
// First match at or behind `from`: its place, length and id; false: none.
bool added_tree_find(const struct AddedTree *tree, const char *text, size_t bytes, size_t from, size_t *start,
                     size_t *length, uint32_t *id);
void added_tree_free(struct AddedTree *tree);
