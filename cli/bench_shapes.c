// The shapes that a model gives to each check of an operation: what its layers ask of the kernel in a pass over so many tokens.
#include "cli/bench.h"

#include <string.h>

static void add(struct ShapeList *l, const uint32_t shape[OP_SHAPE]) {
    for (uint32_t i = 0; i < l->n; i++)
        if (memcmp(l->shape[i], shape, sizeof l->shape[i]) == 0)
            return;
    if (l->n < SHAPE_LIST)
        memcpy(l->shape[l->n++], shape, sizeof l->shape[0]);
}
#define ADD(list, ...) add(list, (uint32_t[OP_SHAPE]){__VA_ARGS__})

static bool is_called(const struct OpCase *oc, const char *part) { return strstr(oc->name, part) != NULL; }

// y = x w^T of w (n, k): quantised rows are whole blocks. Experts take their rows as a router spreads them, evenly and not.
static void add_matrix(struct ShapeList *l, const struct OpCase *oc, const struct Config *c, uint32_t tokens,
                       uint32_t n, uint32_t k, bool routed, uint32_t flags) {
    if (n == 0 || k == 0 || k % DTYPES[oc->type].block)
        return;
    if (!routed)
        ADD(l, tokens, n, k, 0, 0, 0, flags);
    for (uint32_t spread = SPREAD_RANDOM; routed && spread <= SPREAD_SKEWED; spread += SPREAD_SKEWED)
        ADD(l, tokens, n, k, c->n_experts, c->n_active, spread, flags);
}

static void matrices(struct ShapeList *l, const struct OpCase *oc, const struct Config *c, uint32_t tokens) {
    bool few = is_called(oc, "few") || is_called(oc, "swiglu"), dense = config_moe_layers(c) < c->n_layers;
    bool moe = config_moe_layers(c) > 0, back = is_called(oc, "linear_d");
    uint32_t hidden = dense ? c->hidden : 0, shared = moe ? config_shared_width(c) : 0;
    if (few != (tokens <= FEW_ROWS) || is_called(oc, "narrow") ||
        is_called(oc, "large")) // the latter's are in other cases too
        return;
    if (is_called(oc, "swiglu")) {
        enum { SWIGLU = 8 };
        add_matrix(l, oc, c, tokens, hidden, c->dim, false, SWIGLU);
        add_matrix(l, oc, c, tokens, shared, c->dim, false, SWIGLU);
        return;
    }
    add_matrix(l, oc, c, tokens, c->n_heads * c->head_dim, c->dim, false, 0);
    add_matrix(l, oc, c, tokens, c->n_kv_heads * c->head_dim, c->dim, false, 0);
    add_matrix(l, oc, c, tokens, c->dim, c->n_heads * c->head_dim, false, 0);
    add_matrix(l, oc, c, tokens, hidden, c->dim, false, 0);
    add_matrix(l, oc, c, tokens, c->dim, hidden, false, 0);
    add_matrix(l, oc, c, tokens, shared, c->dim, false, 0);
    add_matrix(l, oc, c, tokens, c->dim, shared, false, 0);
    if (moe) {
        // The gradient of gate's and up's input has a row per slot, and is summed by token behind it.
        uint32_t gather = is_called(oc, "linear_dx") ? 0 : LINEAR_GATHER;
        add_matrix(l, oc, c, tokens, c->moe_hidden, c->dim, true, gather);
        add_matrix(l, oc, c, tokens, c->dim, c->moe_hidden, true, 0);
        if (oc->type == DT_F32)
            add_matrix(l, oc, c, tokens, c->n_experts, c->dim, false, 0);
    }
    // The head: of a prompt one row is wanted, in training chunks of labelled rows.
    add_matrix(l, oc, c, back ? (tokens < 256 ? tokens : 256) : few ? tokens : 256, c->vocab_size, c->dim, false, 0);
}

static void rows(struct ShapeList *l, const struct OpCase *oc, const struct Config *c, uint32_t tokens) {
    if (!is_called(oc, "swiglu")) {
        ADD(l, tokens, c->dim);
        return;
    }
    if (config_moe_layers(c) < c->n_layers)
        ADD(l, tokens, c->hidden);
    if (config_moe_layers(c))
        ADD(l, tokens * c->n_active, c->moe_hidden);
}

void bench_shapes(struct ShapeList *l, const struct OpCase *oc, const struct Config *c, uint32_t tokens) {
    const char *names = oc->shape_names;
    bool moe = config_moe_layers(c) > 0, few = tokens <= FEW_ROWS;
    uint32_t widest = c->hidden > c->moe_hidden ? c->hidden : c->moe_hidden;
    l->n = 0;
    if ((strstr(names, "head_dim") ? c->head_dim : c->dim) % DTYPES[oc->type].block && !strstr(names, ",k,"))
        return; // no whole blocks; matrices have other widths
    if (strcmp(names, "tokens,n,k,experts,active,spread,flags") == 0)
        matrices(l, oc, c, tokens);
    else if (strcmp(names, "rows,dim") == 0)
        rows(l, oc, c, tokens);
    else if (strcmp(names, "rows,heads,head_dim") == 0)
        ADD(l, tokens, c->n_heads, c->head_dim);
    else if (strcmp(names, "rows,others,dim") == 0)
        ADD(l, tokens, tokens > 4096 ? tokens : 4096, c->n_kv_heads * c->head_dim);
    else if (strcmp(names, "rows,vocab,dim") == 0 && !is_called(oc, "unpack"))
        ADD(l, tokens, c->vocab_size, c->dim);
    else if (strcmp(names, "tokens,experts,active") == 0 && moe)
        ADD(l, tokens, c->n_experts, c->n_active);
    else if (strcmp(names, "tokens,experts,active,groups") == 0 && moe && !few)
        ADD(l, tokens, c->n_experts, c->n_active, 1);
    else if (strcmp(names, "tokens,experts,active,dim") == 0 && moe)
        ADD(l, tokens, c->n_experts, c->n_active, c->dim);
    else if (strcmp(names, "tokens,experts,active,width") == 0 && moe && !few)
        ADD(l, tokens, c->n_experts, c->n_active, c->moe_hidden);
    else if (strcmp(names, "rows,vocab") == 0 && is_called(oc, "xent") != few)
        ADD(l, tokens < 256 ? tokens : 256, c->vocab_size);
    else if (strcmp(names, "n") == 0 && !few)
        ADD(l, c->dim * widest);
    else if (strcmp(names, "rows,keys,heads,kv_heads,head_dim,layout") == 0 && !few)
        ADD(l, tokens, tokens, c->n_heads, c->n_kv_heads, c->head_dim, ATTENTION_CAUSAL);
    else if (strcmp(names, "rows,keys,heads,kv_heads,head_dim") == 0 && few)
        ADD(l, tokens, c->max_context < 4096 ? c->max_context : 4096, c->n_heads, c->n_kv_heads, c->head_dim);
}
