// Children of a node are a list; only the root, where nearly every search ends, has a table.
#include "model/added.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint32_t new_node(struct AddedTree *tree, uint8_t byte) {
    if (tree->n == tree->capacity) {
        tree->capacity = tree->capacity ? tree->capacity * 2 : 256;
        tree->nodes = xrealloc(tree->nodes, tree->capacity * sizeof *tree->nodes);
    }
    tree->nodes[tree->n] = (struct AddedNode){0, 0, UINT32_MAX, byte};
    return tree->n++;
}

static uint32_t find_child(const struct AddedTree *tree, uint32_t node, uint8_t byte) {
    if (node == 0)
        return tree->by_first[byte];
    uint32_t child = tree->nodes[node].child;
    while (child && tree->nodes[child].byte != byte)
        child = tree->nodes[child].sibling;
    return child;
}

void added_tree_add(struct AddedTree *tree, const char *text, size_t bytes, uint32_t id) {
    assert(bytes > 0 && bytes <= ADDED_MAX_BYTES);
    if (tree->n == 0)
        new_node(tree, 0);
    uint32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t child = find_child(tree, node, byte);
        if (!child) {
            child = new_node(tree, byte);
            if (node == 0) {
                tree->by_first[byte] = child;
            } else {
                tree->nodes[child].sibling = tree->nodes[node].child;
                tree->nodes[node].child = child;
            }
        }
        node = child;
    }
    tree->nodes[node].id = id;
}

bool added_tree_find(const struct AddedTree *tree, const char *text, size_t bytes, size_t from, size_t *start,
                     size_t *length, uint32_t *id) {
    if (tree->n == 0)
        return false;
    for (size_t i = from; i < bytes; i++) {
        bool found = false;
        uint32_t node = 0;
        for (size_t j = i; j < bytes && (node = find_child(tree, node, (uint8_t)text[j])); j++) {
            if (tree->nodes[node].id != UINT32_MAX) {
                *start = i, *length = j + 1 - i, *id = tree->nodes[node].id;
                found = true;
            }
        }
        if (found)
            return true;
    }
    return false;
}

void added_tree_free(struct AddedTree *tree) {
    free(tree->nodes);
    *tree = (struct AddedTree){0};
}
