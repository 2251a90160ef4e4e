// See matcher.h. A stack is a node: a place in the grammar and the node to go back to; equal ones are one (hash tables from content to
// number), so stacks share what they have in common, and a state is an ascending list of nodes, all at a class of characters.
#include "model/matcher.h"
#include "model/tokenizer.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    NONE = 0xffffffff,
    DEAD = 0, // the state that nothing leads out of
    UNKNOWN = 0xffffffff,
    MAX_NODES = 1 << 20, // of all states; when they are spent all but the sequences' own are forgotten
    MAX_STATES = 1 << 15,
    MAX_STACKS = 1 << 12, // of one state
    MAX_MASKS = 1 << 10,
};

struct Node {
    uint32_t element, parent, rest; // rest: fewest bytes from here to the end of the text
    uint32_t stamp;                 // of the closure that met it last
};

struct State {
    uint32_t first, n;    // in `members`
    uint32_t value;       // of a character begun: its bits so far,
    uint8_t remain, size; // bytes missing, bytes in all
    bool complete;
    uint32_t rest;
    uint32_t *next;     // by byte; UNKNOWN: not found out yet
    uint32_t *mask;     // NULL: not made yet
    uint32_t mask_rest; // greatest rest of a state that a token of the mask leads to
};

// The vocabulary as a tree in preorder: a node's own tokens lie before those of the nodes below it.
struct Branch {
    uint32_t skip; // the first node that is not below
    uint32_t first_token;
    uint16_t depth;
    uint8_t byte;
};

struct Table {
    uint32_t *slots, mask, used;
};

struct Matching {
    const struct Grammar *g;
    struct Matcher *matchers;
    struct Node *nodes;
    struct State *states;
    uint32_t *members;
    uint32_t n_nodes, n_states, n_members, n_masks, stamp;
    uint32_t room_nodes, room_states, room_members;
    struct Table node_table, state_table;
    uint32_t *work, room_work, *found, n_found, room_found; // of a closure
    bool too_many;
    struct Branch *tree;
    uint32_t n_tree, *tokens, n_tokens, deepest, n_vocab, *stops, n_stops;
    uint32_t *path; // states by depth
};

static void *room_for(void *list, uint32_t n, uint32_t *room, size_t size) {
    if (n < *room)
        return list;
    *room = *room ? 2 * *room : 256;
    return xrealloc(list, (size_t)*room * size);
}

// ---- Nodes and states

static uint64_t hash_of(uint64_t a, uint64_t b) {
    uint64_t h = (a ^ b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static void table_grow(struct Table *t, uint64_t (*hash)(const struct Matching *, uint32_t), const struct Matching *m) {
    uint32_t *old = t->slots, n = t->slots ? t->mask + 1 : 0;
    t->mask = n ? 2 * n - 1 : 1023;
    t->slots = xmalloc((t->mask + 1) * sizeof *t->slots);
    memset(t->slots, 0xff, (t->mask + 1) * sizeof *t->slots);
    for (uint32_t i = 0; i < n; i++)
        if (old[i] != NONE) {
            uint64_t h = hash(m, old[i]);
            while (t->slots[h & t->mask] != NONE)
                h++;
            t->slots[h & t->mask] = old[i];
        }
    free(old);
}

static uint64_t node_hash(const struct Matching *m, uint32_t i) {
    return hash_of(m->nodes[i].element, m->nodes[i].parent);
}

static uint32_t node_find(struct Matching *m, uint32_t element, uint32_t parent) {
    if (m->node_table.used * 2 >= m->node_table.mask)
        table_grow(&m->node_table, node_hash, m);
    uint64_t h = hash_of(element, parent);
    uint32_t *slot;
    for (; *(slot = &m->node_table.slots[h & m->node_table.mask]) != NONE; h++)
        if (m->nodes[*slot].element == element && m->nodes[*slot].parent == parent)
            return *slot;
    uint64_t rest = (uint64_t)m->g->elements[element].rest + (parent == NONE ? 0 : m->nodes[parent].rest);
    m->nodes = room_for(m->nodes, m->n_nodes, &m->room_nodes, sizeof *m->nodes);
    m->nodes[m->n_nodes] = (struct Node){element, parent, (uint32_t)min_u64(rest, GRAMMAR_NEVER), 0};
    m->node_table.used++;
    return *slot = m->n_nodes++;
}

static uint64_t state_hash(const struct Matching *m, uint32_t i) {
    const struct State *s = &m->states[i];
    uint64_t h = hash_bytes(m->members + s->first, s->n * sizeof *m->members, s->complete);
    return hash_of(h, s->value << 4 | s->remain);
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

// Bytes to the end from a node whose character has `remain` bytes missing.
static uint32_t rest_of(const struct Matching *m, const struct Node *node, uint32_t remain) {
    const struct Element *e = &m->g->elements[node->element];
    return remain ? node->rest - (e->rest - e[1].rest) + remain : node->rest;
}

// The state of the nodes in `found`.
static uint32_t state_find(struct Matching *m, uint32_t value, uint32_t remain, uint32_t size, bool complete) {
    if (m->n_found == 0 && !complete)
        return DEAD;
    qsort(m->found, m->n_found, sizeof *m->found, by_number);
    struct State s = {.first = m->n_members,
                      .n = m->n_found,
                      .value = value,
                      .remain = (uint8_t)remain,
                      .size = (uint8_t)size,
                      .complete = complete,
                      .rest = complete ? 0 : GRAMMAR_NEVER};
    for (uint32_t i = 0; i < m->n_found; i++) {
        m->members = room_for(m->members, m->n_members, &m->room_members, sizeof *m->members);
        m->members[m->n_members++] = m->found[i];
        s.rest = (uint32_t)min_u64(s.rest, rest_of(m, &m->nodes[m->found[i]], remain));
    }
    m->states = room_for(m->states, m->n_states, &m->room_states, sizeof *m->states);
    m->states[m->n_states] = s;
    if (m->state_table.used * 2 >= m->state_table.mask)
        table_grow(&m->state_table, state_hash, m);
    uint64_t h = state_hash(m, m->n_states);
    uint32_t *slot;
    for (; *(slot = &m->state_table.slots[h & m->state_table.mask]) != NONE; h++) {
        const struct State *o = &m->states[*slot];
        if (o->n == s.n && o->complete == complete && o->value == value && o->remain == remain && o->size == size &&
            memcmp(m->members + o->first, m->members + s.first, s.n * sizeof *m->members) == 0) {
            m->n_members = s.first;
            return *slot;
        }
    }
    m->state_table.used++;
    return *slot = m->n_states++;
}

// ---- From state to state

static void visit(struct Matching *m, uint32_t *n_work, uint32_t element, uint32_t parent) {
    uint32_t node = node_find(m, element, parent);
    if (m->nodes[node].stamp == m->stamp || m->too_many)
        return;
    m->nodes[node].stamp = m->stamp;
    m->work = room_for(m->work, *n_work, &m->room_work, sizeof *m->work);
    m->work[(*n_work)++] = node;
    if (*n_work > MAX_STACKS)
        m->too_many = true;
}

// Adds to `found` the places of characters that can be reached from what lies in `work`; tells whether the text may end.
static bool close_over(struct Matching *m, uint32_t n_work) {
    const struct Grammar *g = m->g;
    bool complete = false;
    while (n_work > 0 && !m->too_many) {
        uint32_t at = m->work[--n_work];
        struct Node node = m->nodes[at];
        const struct Element *e = &g->elements[node.element];
        if (e->kind == ELEMENT_CLASS) {
            m->found = room_for(m->found, m->n_found, &m->room_found, sizeof *m->found);
            m->found[m->n_found++] = at;
            m->too_many = m->n_found > MAX_STACKS;
        } else if (e->kind == ELEMENT_END && node.parent == NONE) {
            complete = true;
        } else if (e->kind == ELEMENT_END) {
            visit(m, &n_work, m->nodes[node.parent].element, m->nodes[node.parent].parent);
        } else {
            // What is last in its alternative leaves no place to come back to: a list of any length is a stack of one height.
            bool last = e[1].kind == ELEMENT_END;
            uint32_t back = last ? node.parent : node_find(m, node.element + 1, node.parent);
            const struct Rule *rule = &g->rules[e->value];
            for (uint32_t a = rule->first; a < rule->first + rule->n; a++)
                if (g->elements[g->alternatives[a]].rest < GRAMMAR_NEVER)
                    visit(m, &n_work, g->alternatives[a], back);
        }
    }
    return complete;
}

// Code points that a character begun can become; false: none.
static bool char_range(uint32_t value, uint32_t remain, uint32_t size, uint32_t *low, uint32_t *high) {
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    *low = value << 6 * remain;
    *high = *low | ((1u << 6 * remain) - 1);
    *low = (uint32_t)max_u64(*low, LEAST[size]);
    *high = (uint32_t)min_u64(*high, 0x10ffff);
    if (*low >= 0xd800 && *low <= 0xdfff) // surrogates are no characters
        *low = 0xe000;
    if (*high >= 0xd800 && *high <= 0xdfff)
        *high = 0xd7ff;
    return *low <= *high;
}

static uint32_t step(struct Matching *m, uint32_t from, uint8_t byte) {
    struct State s = m->states[from];
    uint32_t value, remain, size, low, high, n_work = 0;
    if (s.remain > 0) {
        if ((byte & 0xc0) != 0x80)
            return DEAD;
        value = s.value << 6 | (byte & 0x3f), remain = s.remain - 1u, size = s.size;
    } else if (byte < 0x80) {
        value = byte, remain = 0, size = 1;
    } else {
        size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 0;
        if (size == 0 || byte >= 0xf8)
            return DEAD;
        value = byte & (0x7fu >> size), remain = size - 1;
    }
    if (!char_range(value, remain, size, &low, &high))
        return DEAD;
    m->n_found = 0;
    m->stamp++;
    bool complete = false;
    for (uint32_t i = 0; i < s.n && !m->too_many; i++) {
        uint32_t at = m->members[s.first + i], element = m->nodes[at].element;
        if (!class_meets(m->g, m->g->elements[element].value, low, high))
            continue;
        if (remain == 0) {
            visit(m, &n_work, element + 1, m->nodes[at].parent);
        } else {
            m->found = room_for(m->found, m->n_found, &m->room_found, sizeof *m->found);
            m->found[m->n_found++] = at;
        }
    }
    if (remain == 0) {
        complete = close_over(m, n_work);
        value = 0, size = 0;
    }
    return m->too_many ? DEAD : state_find(m, value, remain, size, complete);
}

static uint32_t next_state(struct Matching *m, uint32_t from, uint8_t byte) {
    if (from == DEAD)
        return DEAD;
    if (!m->states[from].next) {
        uint32_t *next = xmalloc(256 * sizeof *next);
        memset(next, 0xff, 256 * sizeof *next);
        m->states[from].next = next;
    }
    uint32_t *found = &m->states[from].next[byte];
    if (*found == UNKNOWN) {
        uint32_t to = step(m, from, byte); // moves the table of states
        m->states[from].next[byte] = to;
        return to;
    }
    return *found;
}

static uint32_t start_state(struct Matching *m) {
    uint32_t n_work = 0;
    const struct Rule *root = &m->g->rules[m->g->root];
    m->n_found = 0;
    m->stamp++;
    for (uint32_t a = root->first; a < root->first + root->n; a++)
        if (m->g->elements[m->g->alternatives[a]].rest < GRAMMAR_NEVER)
            visit(m, &n_work, m->g->alternatives[a], NONE);
    bool complete = close_over(m, n_work);
    return m->too_many ? DEAD : state_find(m, 0, 0, 0, complete);
}

// ---- Forgetting

static void states_free(struct State *states, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        free(states[i].next);
        free(states[i].mask);
    }
    free(states);
}

static void add_dead(struct Matching *m) {
    m->states = room_for(m->states, 0, &m->room_states, sizeof *m->states);
    m->states[0] = (struct State){.rest = GRAMMAR_NEVER};
    m->n_states = 1;
    // Lists are there even where they are empty: the C library wants no null pointers.
    m->members = room_for(m->members, 0, &m->room_members, sizeof *m->members);
    m->found = room_for(m->found, 0, &m->room_found, sizeof *m->found);
}

// The node's stack among the nodes that are made anew.
static uint32_t move_stack(struct Matching *m, const struct Node *old, uint32_t node) {
    uint32_t n = 0, at = NONE;
    for (uint32_t i = node; i != NONE; i = old[i].parent) {
        m->work = room_for(m->work, n, &m->room_work, sizeof *m->work);
        m->work[n++] = i;
    }
    while (n > 0)
        at = node_find(m, old[m->work[--n]].element, at);
    return at;
}

// Starts all tables anew with the states that sequences are in.
static void forget(struct Matching *m) {
    struct Matching old = *m;
    m->nodes = NULL, m->states = NULL, m->members = NULL;
    m->n_nodes = m->n_states = m->n_members = m->n_masks = 0;
    m->room_nodes = m->room_states = m->room_members = 0;
    m->node_table = m->state_table = (struct Table){NULL, 0, 0};
    add_dead(m);
    for (struct Matcher *x = m->matchers; x; x = x->next) {
        const struct State *s = &old.states[x->state];
        m->n_found = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            m->found = room_for(m->found, m->n_found, &m->room_found, sizeof *m->found);
            m->found[m->n_found++] = move_stack(m, old.nodes, old.members[s->first + i]);
        }
        x->state = state_find(m, s->value, s->remain, s->size, s->complete);
    }
    states_free(old.states, old.n_states);
    free(old.nodes), free(old.members), free(old.node_table.slots), free(old.state_table.slots);
}

static void forget_if_many(struct Matching *m) {
    if (m->n_nodes > MAX_NODES || m->n_states > MAX_STATES || m->n_members > MAX_NODES)
        forget(m);
}

// ---- The vocabulary

struct Text {
    const char *bytes;
    uint32_t n, id;
};

static int by_bytes(const void *a, const void *b) {
    const struct Text *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->n < y->n ? x->n : y->n);
    return order ? order : x->n != y->n ? (x->n < y->n ? -1 : 1) : x->id < y->id ? -1 : x->id > y->id;
}

static void tree_make(struct Matching *m, const struct Tokenizer *t) {
    enum { LONGEST = 0xffff };
    char **texts = xcalloc(m->n_vocab, sizeof *texts);
    struct Text *list = xcalloc(m->n_vocab, sizeof *list);
    uint32_t n = 0, room = 0, *open;
    for (uint32_t id = 0; id < m->n_vocab && id < t->n_vocab; id++) {
        size_t bytes = tokenizer_is_special(t, id) ? 0 : tokenizer_piece(t, id, NULL, 0);
        if (bytes == 0 || bytes > LONGEST)
            continue;
        texts[n] = xmalloc(bytes);
        tokenizer_piece(t, id, texts[n], bytes);
        list[n] = (struct Text){texts[n], (uint32_t)bytes, id};
        m->deepest = (uint32_t)max_u64(m->deepest, bytes);
        n++;
    }
    qsort(list, n, sizeof *list, by_bytes);
    m->tokens = xcalloc(n + 1, sizeof *m->tokens);
    open = xcalloc(m->deepest + 1, sizeof *open); // the branch at each depth that is not closed yet
    uint32_t depth = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t same = 0;
        while (i > 0 && same < list[i].n && same < list[i - 1].n && list[i].bytes[same] == list[i - 1].bytes[same])
            same++;
        for (; depth > same; depth--)
            m->tree[open[depth - 1]].skip = m->n_tree;
        for (; depth < list[i].n; depth++) {
            m->tree = room_for(m->tree, m->n_tree, &room, sizeof *m->tree);
            open[depth] = m->n_tree;
            m->tree[m->n_tree++] = (struct Branch){0, i, (uint16_t)depth, (uint8_t)list[i].bytes[depth]};
        }
        m->tokens[i] = list[i].id;
    }
    for (; depth > 0; depth--)
        m->tree[open[depth - 1]].skip = m->n_tree;
    m->n_tokens = n;
    for (uint32_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts), free(list), free(open);
}

// ---- The outside

struct Matching *matching_open(const struct Grammar *g, const struct Tokenizer *t, uint32_t n_vocab,
                               const uint32_t *stops, uint32_t n_stops) {
    struct Matching *m = xcalloc(1, sizeof *m);
    m->g = g;
    m->n_vocab = n_vocab;
    m->stops = xmalloc((n_stops + 1) * sizeof *m->stops);
    m->n_stops = n_stops;
    if (n_stops)
        memcpy(m->stops, stops, n_stops * sizeof *stops);
    add_dead(m);
    if (t)
        tree_make(m, t);
    m->path = xcalloc(m->deepest + 1, sizeof *m->path);
    return m;
}

void matching_close(struct Matching *m) {
    if (!m)
        return;
    states_free(m->states, m->n_states);
    free(m->nodes), free(m->members), free(m->node_table.slots), free(m->state_table.slots);
    free(m->work), free(m->found), free(m->tree), free(m->tokens), free(m->stops), free(m->path);
    free(m);
}

void matcher_begin(struct Matcher *x, struct Matching *m) {
    *x = (struct Matcher){m, start_state(m), m->matchers};
    m->matchers = x;
}

void matcher_end(struct Matcher *x) {
    if (!x->m)
        return;
    for (struct Matcher **at = &x->m->matchers; *at; at = &(*at)->next)
        if (*at == x) {
            *at = x->next;
            break;
        }
    x->m = NULL;
}

static bool too_many(const struct Matching *m) {
    return !m->too_many ||
           fail("the grammar is too ambiguous: a text can be read in more than %u ways at once", (unsigned)MAX_STACKS);
}

bool matcher_accept(struct Matcher *x, const char *bytes, size_t n) {
    uint32_t state;
    forget_if_many(x->m);
    state = x->state;
    for (size_t i = 0; i < n && state != DEAD; i++)
        state = next_state(x->m, state, (uint8_t)bytes[i]);
    if (state == DEAD) {
        too_many(x->m);
        return false;
    }
    x->state = state;
    return true;
}

bool matcher_may_end(const struct Matcher *x) { return x->m->states[x->state].complete; }
bool matcher_must_end(const struct Matcher *x) { return matcher_may_end(x) && x->m->states[x->state].n == 0; }
uint32_t matcher_rest(const struct Matcher *x) { return x->m->states[x->state].rest; }

// Tokens that lead from a state to one whose rest is at most `most`; gives the greatest rest that is reached.
static uint32_t fill_mask(struct Matching *m, uint32_t state, uint32_t most, uint32_t *mask) {
    uint32_t greatest = 0;
    memset(mask, 0, div_up(m->n_vocab, 32) * sizeof *mask);
    m->path[0] = state;
    for (uint32_t i = 0; i < m->n_tree;) {
        const struct Branch *b = &m->tree[i];
        uint32_t to = next_state(m, m->path[b->depth], b->byte), end;
        if (to == DEAD) {
            i = b->skip;
            continue;
        }
        m->path[b->depth + 1] = to;
        i++;
        end = i < m->n_tree ? m->tree[i].first_token : m->n_tokens;
        if (end == b->first_token || m->states[to].rest > most)
            continue;
        greatest = (uint32_t)max_u64(greatest, m->states[to].rest);
        for (uint32_t k = b->first_token; k < end; k++)
            mask[m->tokens[k] / 32] |= 1u << m->tokens[k] % 32;
    }
    for (uint32_t i = 0; i < m->n_stops; i++) { // whatever their own text is
        uint32_t bit = 1u << m->stops[i] % 32, *word = &mask[m->stops[i] / 32];
        if (m->stops[i] < m->n_vocab)
            *word = m->states[state].complete ? *word | bit : *word & ~bit;
    }
    return greatest;
}

bool matcher_mask(struct Matcher *x, uint32_t left, uint32_t *mask) {
    struct Matching *m = x->m;
    uint32_t words = (uint32_t)div_up(m->n_vocab, 32), any = 0;
    forget_if_many(m);
    struct State *s = &m->states[x->state];
    if (!s->mask) {
        if (m->n_masks >= MAX_MASKS) {
            for (uint32_t i = 0; i < m->n_states; i++) {
                free(m->states[i].mask);
                m->states[i].mask = NULL;
            }
            m->n_masks = 0;
        }
        uint32_t *made = xmalloc(words * sizeof *made + 4), rest = fill_mask(m, x->state, GRAMMAR_NEVER, made);
        s = &m->states[x->state]; // the table may have moved
        s->mask = made;
        s->mask_rest = rest;
        m->n_masks++;
    }
    const uint32_t *whole = s->mask;
    if (s->rest <= left && s->mask_rest >= left && left > 0) {
        fill_mask(m, x->state, left - 1, mask);
        for (uint32_t i = 0; i < words; i++)
            any |= mask[i];
    }
    if (!any) // a vocabulary without single bytes may have no short way out
        memcpy(mask, whole, words * sizeof *mask);
    for (uint32_t i = 0; i < words; i++)
        any |= mask[i];
    if (!too_many(m))
        return false;
    return any != 0 || fail("the grammar cannot be met here: no token of the vocabulary goes on with it");
}
