// The recorder. A Cmd is a list of dispatches in host memory: kernel, grid, arguments, the ranges touched, and whether a barrier stands
// before it. Vulkan command buffers are made of the list when the program is first submitted, cut where the cost model says
// 50 ms, within a dispatch too where one is longer by far, and made again in smaller pieces when a submit turns out too long.
#include "runtime/cmd.h"
#include "runtime/vk.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double SUBMIT_LIMIT = 4; // of what a submit is meant to take
enum { MOST_PIECES = 1024 };          // of a dispatch
enum { PUSH_MAX_BYTES = 128, MAX_POINTERS = 16 };

struct Access {
    uint64_t first, end; // byte addresses
    bool write;
};

struct Node {
    VkPipeline pipeline;
    enum KernelId kernel;
    uint32_t groups[3];
    uint64_t indirect; // address of the group counts; 0: direct
    bool barrier;      // before this dispatch
    bool can_be_cut;   // into several, each of some workgroups
    bool at_most;      // flops and bytes are bounds
    uint32_t recorded; // its place in the order in which it was recorded
    uint8_t push[PUSH_MAX_BYTES];
    uint32_t first_access, n_access; // in the log's list
    double flops, bytes;
    double learnt_ms; // what it took where the program was found to be cut badly; 0: the cost model is asked
    const char *label;
};

// The host's part between two dispatches.
struct HostCall {
    uint32_t node; // the first one behind it
    bool (*call)(struct Device *dev, void *context);
    void *context;
};

struct Cmd {
    struct Device *dev;
    struct HostCall *calls;
    uint32_t n_calls;
    char name[48];
    struct Node *nodes;
    uint32_t n_nodes, node_slots;
    struct Access *accesses;
    uint32_t n_accesses, access_slots;
    uint32_t n_barriers;
};

struct Segment {
    VkCommandBuffer cb;
    uint32_t first, end;      // nodes
    uint32_t piece, n_pieces; // of the only node, where it is cut; else 0 of 1
};

struct Program {
    struct Cmd log;
    struct Segment *segments;
    uint32_t n_segments;
    VkQueryPool queries; // two per segment; with profiling two per node instead
    bool profiled;
    uint32_t n_joined; // times that it was made again in larger pieces
    double last_us;
};

static int profile_state = -1; // whether dispatches are timed; -1: as VKMOE_PROFILE says

static bool profiling(void) {
    if (profile_state < 0) {
        const char *text = getenv("VKMOE_PROFILE");
        profile_state = text && text[0] && strcmp(text, "0") != 0;
    }
    return profile_state;
}

struct Cmd *cmd_begin(struct Device *dev, const char *name) {
    struct Cmd *c = xcalloc(1, sizeof *c);
    c->dev = dev;
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

uint32_t cmd_local_size(const struct Device *dev) {
    return dev->is_cpu ? dev->limits.subgroup_size : (uint32_t)max_u64(128, dev->limits.subgroup_size);
}

struct Device *cmd_device(struct Cmd *c) {
    return c->dev;
}

void cmd_host(struct Cmd *c, bool (*call)(struct Device *dev, void *context), const void *context, uint32_t bytes) {
    if (c->dev->state != DEVICE_OK) // nothing more is recorded
        return;
    assert(c->n_calls == 0 || c->calls[c->n_calls - 1].node < c->n_nodes);
    c->calls = xrealloc(c->calls, (c->n_calls + 1) * sizeof *c->calls);
    struct HostCall *h = &c->calls[c->n_calls++];
    *h = (struct HostCall){c->n_nodes, call, xmalloc(bytes)};
    memcpy(h->context, context, bytes);
}

static const struct HostCall *call_before(const struct Cmd *c, uint32_t node) {
    for (uint32_t i = 0; i < c->n_calls; i++)
        if (c->calls[i].node == node)
            return &c->calls[i];
    return NULL;
}

static void cmd_drop(struct Cmd *c) {
    for (uint32_t i = 0; i < c->n_calls; i++)
        free(c->calls[i].context);
    free(c->calls);
    free(c->nodes);
    free(c->accesses);
}

static bool conflicts(const struct Access *a, const struct Access *b) {
    return (a->write || b->write) && a->first < b->end && b->first < a->end;
}

static void access_add(struct Cmd *c, struct View v, bool write) {
    if (v.address == 0 || v.bytes == 0)
        return;
    if (c->n_accesses == c->access_slots) {
        c->access_slots = c->access_slots ? c->access_slots * 2 : 256;
        c->accesses = xrealloc(c->accesses, c->access_slots * sizeof *c->accesses);
    }
    c->accesses[c->n_accesses++] = (struct Access){v.address, v.address + v.bytes, write};
}

// False after a message where the device takes no such grid.
static bool node_grid(struct Device *dev, const struct Dispatch *d, uint32_t groups[3]) {
    const uint32_t *most = dev->limits.max_groups;
    uint32_t n = d->groups[0];
    groups[0] = n, groups[1] = d->groups[1] ? d->groups[1] : 1, groups[2] = d->groups[2] ? d->groups[2] : 1;
    if (d->groups[1] == 0 && d->groups[2] == 0 && n > most[0]) {
        groups[1] = (uint32_t)div_up(n, most[0]);
        groups[0] = (uint32_t)div_up(n, groups[1]);
    }
    if (groups[0] <= most[0] && groups[1] <= most[1] && groups[2] <= most[2])
        return true;
    dev->state = DEVICE_FAILED;
    return fail("%s: %s takes %u x %u x %u workgroups, and %u x %u x %u are the most: choose another --device",
                dev->name, d->label ? d->label : KERNELS[d->kernel].name, groups[0], groups[1], groups[2], most[0],
                most[1], most[2]);
}

static double node_model_ms(const struct Device *dev, const struct Node *n) {
    double compute = n->flops / (dev->gflops * 1e6), traffic = n->bytes / (dev->gbytes_per_s * 1e6);
    return fmax(compute, traffic) / dev->pace + (dev->is_cpu ? 0.02 : 0.004);
}

static double node_ms(const struct Device *dev, const struct Node *n) {
    return n->learnt_ms > 0 ? n->learnt_ms : node_model_ms(dev, n);
}

void cmd_dispatch(struct Cmd *c, const struct Dispatch *d, const void *args) {
    struct Device *dev = c->dev;
    if (dev->state != DEVICE_OK || (d->groups[0] == 0 && d->indirect.address == 0))
        return;
    const struct PushInfo *push = &PUSH_INFO[KERNELS[d->kernel].push];
    if (c->n_nodes == c->node_slots) {
        c->node_slots = c->node_slots ? c->node_slots * 2 : 64;
        c->nodes = xrealloc(c->nodes, c->node_slots * sizeof *c->nodes);
    }
    struct Node *node = &c->nodes[c->n_nodes];
    *node = (struct Node){.kernel = d->kernel,
                          .flops = d->flops,
                          .bytes = d->bytes,
                          .at_most = d->at_most,
                          .label = d->label ? d->label : KERNELS[d->kernel].name,
                          .indirect = d->indirect.address,
                          .recorded = c->n_nodes,
                          .first_access = c->n_accesses};
    const struct View *views = args;
    for (uint32_t i = 0; i < push->n_pointers; i++) {
        memcpy(node->push + 8 * i, &views[i].address, 8);
        if (push->modes[i] != 'w')
            access_add(c, views[i], false);
        if (push->modes[i] != 'r')
            access_add(c, views[i], true);
    }
    memcpy(node->push + 8 * push->n_pointers, views + push->n_pointers, 4 * (size_t)push->n_words);
    access_add(c, d->indirect, false);
    node->n_access = c->n_accesses - node->first_access;
    if (!node_grid(dev, d, node->groups))
        return;
    c->n_nodes++;
    if (dev->is_dry && !dev->compile_only)
        return;
    uint32_t spec[KERNEL_MAX_SPEC + 2] = {d->local_size ? d->local_size : cmd_local_size(dev),
                                          d->subgroup ? d->subgroup : dev->limits.subgroup_size};
    assert(d->n_spec <= KERNEL_MAX_SPEC);
    memcpy(spec + 2, d->spec, d->n_spec * sizeof *spec);
    // The rates may turn out lower than they look now, so what is only longish can be cut too.
    node->can_be_cut =
        dev->cuts_dispatches && !dev->is_dry && !node->indirect && 5 * node_ms(dev, node) > dev->submit_ms;
    node->pipeline = pipeline_get(dev, d->kernel, spec, d->n_spec + 2, node->can_be_cut);
}

// Both move fours of words; CPU devices several a lane, because there a workgroup costs more than its words.
static struct Dispatch words_dispatch(const struct Device *dev, enum KernelId kernel, uint32_t n, bool aligned) {
    // Reading ahead ends with the workgroup: 64 KiB each.
    uint32_t local = cmd_local_size(dev), steps = kernel == KERNEL_fill_cpu ? 512 : dev->is_cpu ? 16 : 1;
    return (struct Dispatch){.kernel = kernel,
                             .local_size = local,
                             .spec = {steps, aligned},
                             .n_spec = 2,
                             .groups = {(uint32_t)div_up(div_up(n, 4), (uint64_t)local * steps)}};
}

void cmd_fill(struct Cmd *c, const struct Tensor *t, uint32_t value) {
    uint32_t n = (uint32_t)(t->bytes / 4);
    struct Dispatch d =
        words_dispatch(c->dev, KERNEL_PICK(c->dev, KERNEL_fill_cpu, KERNEL_fill), n, t->address % 16 == 0);
    d.bytes = (double)t->bytes;
    cmd_dispatch(c, &d, &(struct Args_fill){.y = view(t), .n = n, .value = value});
}

void cmd_copy(struct Cmd *c, const struct Tensor *from, const struct Tensor *to) {
    assert(from->bytes == to->bytes);
    uint32_t n = (uint32_t)(to->bytes / 4);
    struct Dispatch d =
        words_dispatch(c->dev, KERNEL_PICK(c->dev, KERNEL_copy), n, (from->address | to->address) % 16 == 0);
    d.bytes = 2 * (double)to->bytes;
    cmd_dispatch(c, &d, &(struct Args_copy){.x = view(from), .y = view(to), .n = n});
}

// ---- Order

static bool nodes_conflict(const struct Cmd *c, const struct Node *a, const struct Node *b) {
    for (uint32_t i = 0; i < a->n_access; i++)
        for (uint32_t j = 0; j < b->n_access; j++)
            if (conflicts(&c->accesses[a->first_access + i], &c->accesses[b->first_access + j]))
                return true;
    return false;
}

// Dispatches first .. end-1 by levels: each goes to the first level behind all before it that it conflicts with, and barriers stand between
// levels alone. So what does not depend on each other shares a barrier, wherever it was recorded (a MoE's shared and routed experts).
static void order_window(struct Cmd *c, uint32_t first, uint32_t end) {
    uint32_t n = end - first, levels = 0, put = first;
    uint32_t *level = xcalloc(n, sizeof *level);
    struct Node *old = xmalloc(n * sizeof *old);
    memcpy(old, c->nodes + first, n * sizeof *old);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++)
            if (level[j] >= level[i] && nodes_conflict(c, &old[i], &old[j]))
                level[i] = level[j] + 1;
        levels = level[i] >= levels ? level[i] + 1 : levels;
    }
    uint32_t open = first; // the first dispatch behind the last barrier
    while (open > 0 && !c->nodes[open - 1].barrier)
        open--;
    open -= open > 0;
    for (uint32_t l = 0; l < levels; l++) {
        uint32_t begin = put;
        for (uint32_t i = 0; i < n; i++)
            if (level[i] == l)
                c->nodes[put++] = old[i];
        bool due = l > 0;
        for (uint32_t i = begin; i < put && l == 0; i++)
            for (uint32_t j = open; j < first && !due; j++)
                due = nodes_conflict(c, &c->nodes[i], &c->nodes[j]);
        c->nodes[begin].barrier = due;
        c->n_barriers += due;
    }
    free(level), free(old);
}

enum { WINDOW = 192 }; // dispatches; the search for conflicts grows with its square

static void order(struct Cmd *c) {
    for (uint32_t first = 0, end; first < c->n_nodes; first = end) {
        end = first + 1;
        while (end < c->n_nodes && end - first < WINDOW && !call_before(c, end))
            end++;
        order_window(c, first, end);
    }
}

struct Program *cmd_end(struct Cmd *c) {
    struct Program *p = NULL;
    if (c->dev->state == DEVICE_OK) {
        assert(c->n_calls == 0 || c->calls[c->n_calls - 1].node < c->n_nodes);
        order(c);
        p = xcalloc(1, sizeof *p);
        p->log = *c;
    } else {
        cmd_drop(c);
    }
    free(c);
    return p;
}

// ---- Encoding

enum BarrierKind {
    BARRIER_BETWEEN = 0,  // two dispatches
    BARRIER_INDIRECT = 1, // the second one's grid lies in memory
    BARRIER_FIRST = 2,    // behind copies
    BARRIER_LAST = 4      // before copies and the host
};

// Only what is asked for: a barrier that names more stages than the two dispatches use costs more than the dispatch (NVIDIA).
static void global_barrier(VkCommandBuffer cb, uint32_t kind) {
    VkMemoryBarrier2 barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                                .srcStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                                .srcAccessMask = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT,
                                .dstStageMask = VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
                                .dstAccessMask =
                                    VK_ACCESS_2_SHADER_STORAGE_READ_BIT | VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT};
    if (kind & BARRIER_FIRST) {
        barrier.srcStageMask |= VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
        barrier.srcAccessMask |= VK_ACCESS_2_TRANSFER_WRITE_BIT;
    }
    if (kind & BARRIER_INDIRECT) {
        barrier.dstStageMask |= VK_PIPELINE_STAGE_2_DRAW_INDIRECT_BIT;
        barrier.dstAccessMask |= VK_ACCESS_2_INDIRECT_COMMAND_READ_BIT;
    }
    if (kind & BARRIER_LAST) {
        barrier.dstStageMask = VK_PIPELINE_STAGE_2_HOST_BIT | VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT;
        barrier.dstAccessMask = VK_ACCESS_2_HOST_READ_BIT | VK_ACCESS_2_TRANSFER_READ_BIT;
    }
    VkDependencyInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &barrier};
    vkCmdPipelineBarrier2(cb, &info);
}

// Whether a dispatch from `i` up to the next barrier takes its grid from memory.
static bool indirect_follows(const struct Cmd *c, uint32_t i, uint32_t end) {
    do
        if (c->nodes[i].indirect)
            return true;
    while (++i < end && !c->nodes[i].barrier);
    return false;
}

// Folded grids count in rows of x (group_index), which stay whole.
static uint32_t cut_axis(const struct Node *n) { return n->groups[2] > n->groups[1] ? 2 : n->groups[1] > 1 ? 1 : 0; }

static uint32_t most_pieces(const struct Node *n) {
    return n->can_be_cut ? (uint32_t)min_u64(MOST_PIECES, n->groups[cut_axis(n)]) : 1;
}

static uint32_t pieces_of(const struct Device *dev, const struct Node *n) {
    double ms = node_ms(dev, n);
    return ms <= SUBMIT_LIMIT * dev->submit_ms ? 1 : (uint32_t)fmin(ceil(ms / dev->submit_ms), most_pieces(n));
}

static void dispatch_encode(VkCommandBuffer cb, struct Device *dev, const struct Node *n, const struct Segment *s) {
    if (n->indirect) {
        const struct Block *b = block_find(dev, n->indirect, 12);
        vkCmdDispatchIndirect(cb, b->buffer, n->indirect - b->address);
    } else if (s->n_pieces == 1) {
        vkCmdDispatch(cb, n->groups[0], n->groups[1], n->groups[2]);
    } else {
        uint32_t base[3] = {0}, count[3], axis = cut_axis(n);
        uint64_t all = n->groups[axis];
        memcpy(count, n->groups, sizeof count);
        base[axis] = (uint32_t)(all * s->piece / s->n_pieces);
        count[axis] = (uint32_t)(all * (s->piece + 1) / s->n_pieces) - base[axis];
        vkCmdDispatchBase(cb, base[0], base[1], base[2], count[0], count[1], count[2]);
    }
}

static bool segment_encode(struct Program *p, struct Segment *s, uint32_t index) {
    struct Device *dev = p->log.dev;
    struct DeviceVk *vk = dev->vk;
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = vk->pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    if (!VK_TRY(dev, vkAllocateCommandBuffers(vk->device, &allocate, &s->cb)) ||
        !VK_TRY(dev, vkBeginCommandBuffer(s->cb, &begin)))
        return false;
    uint32_t first_query = p->profiled ? 2 * s->first : 2 * index;
    uint32_t n_queries = p->profiled ? 2 * (s->end - s->first) : 2;
    if (p->queries) {
        if (!p->profiled || s->piece == 0)
            vkCmdResetQueryPool(s->cb, p->queries, first_query, n_queries);
        if (!p->profiled)
            vkCmdWriteTimestamp2(s->cb, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, p->queries, first_query);
    }
    for (uint32_t i = s->first; i < s->end; i++) {
        const struct Node *n = &p->log.nodes[i];
        const struct PushInfo *push = &PUSH_INFO[KERNELS[n->kernel].push];
        if (n->barrier || i == s->first || p->profiled) // times of one dispatch at a time
            global_barrier(s->cb, (i == s->first ? BARRIER_FIRST : 0) |
                                      (indirect_follows(&p->log, i, s->end) ? BARRIER_INDIRECT : 0));
        if (p->queries && p->profiled && s->piece == 0)
            vkCmdWriteTimestamp2(s->cb, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, p->queries, 2 * i);
        vkCmdBindPipeline(s->cb, VK_PIPELINE_BIND_POINT_COMPUTE, n->pipeline);
        vkCmdPushConstants(s->cb, vk->layouts[KERNELS[n->kernel].push], VK_SHADER_STAGE_COMPUTE_BIT, 0, push->bytes,
                           n->push);
        dispatch_encode(s->cb, dev, n, s);
        if (p->queries && p->profiled && s->piece == s->n_pieces - 1)
            vkCmdWriteTimestamp2(s->cb, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, p->queries, 2 * i + 1);
    }
    if (p->queries && !p->profiled)
        vkCmdWriteTimestamp2(s->cb, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, p->queries, first_query + 1);
    if (s->end == p->log.n_nodes || call_before(&p->log, s->end))
        global_barrier(s->cb, BARRIER_LAST);
    return VK_TRY(dev, vkEndCommandBuffer(s->cb));
}

static void segments_drop(struct Program *p) {
    struct DeviceVk *vk = p->log.dev->vk;
    for (uint32_t i = 0; i < p->n_segments; i++)
        if (p->segments[i].cb)
            vkFreeCommandBuffers(vk->device, vk->pool, 1, &p->segments[i].cb);
    if (p->queries)
        vkDestroyQueryPool(vk->device, p->queries, NULL);
    free(p->segments);
    p->segments = NULL;
    p->n_segments = 0;
    p->queries = VK_NULL_HANDLE;
}

static bool program_encode(struct Program *p) {
    struct Device *dev = p->log.dev;
    const struct Node *nodes = p->log.nodes;
    uint32_t n = p->log.n_nodes, most = 1;
    for (uint32_t i = 0; i < n; i++)
        most += pieces_of(dev, &nodes[i]);
    p->segments = xcalloc(most, sizeof *p->segments);
    p->profiled = profiling() && device_can(dev, CAP_timestamps);
    for (uint32_t i = 0; i < n;) {
        uint32_t pieces = pieces_of(dev, &nodes[i]), first = i;
        double ms = 0;
        do
            ms += node_ms(dev, &nodes[i++]);
        while (pieces == 1 && i < n && !call_before(&p->log, i) && ms + node_ms(dev, &nodes[i]) <= dev->submit_ms);
        for (uint32_t k = 0; k < pieces; k++)
            p->segments[p->n_segments++] = (struct Segment){.first = first, .end = i, .piece = k, .n_pieces = pieces};
    }
    if (device_can(dev, CAP_timestamps) && p->log.n_nodes) {
        VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                      .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                      .queryCount = 2 * (p->profiled ? p->log.n_nodes : p->n_segments)};
        if (!VK_MAKE(dev, p->queries, vkCreateQueryPool(dev->vk->device, &info, NULL, &p->queries)))
            return false;
    }
    for (uint32_t i = 0; i < p->n_segments; i++)
        if (!segment_encode(p, &p->segments[i], i))
            return false;
    return true;
}

// ---- Running

// A set: a program's queries hold its last run alone.
static void pending_add(struct DeviceVk *vk, struct Program *p) {
    for (uint32_t i = 0; i < vk->n_pending; i++)
        if (vk->pending[i] == p)
            return;
    if (vk->n_pending == vk->pending_slots) {
        vk->pending_slots = vk->pending_slots ? vk->pending_slots * 2 : 16;
        vk->pending = xrealloc(vk->pending, vk->pending_slots * sizeof *vk->pending);
    }
    vk->pending[vk->n_pending++] = p;
}

bool program_submit(struct Program *p) {
    struct Device *dev = p->log.dev;
    if (dev->is_dry)
        return true;
    struct DeviceVk *vk = dev->vk;
    if (dev->state != DEVICE_OK || (!p->segments && !program_encode(p)))
        return false;
    if (p->log.n_nodes)
        snprintf(vk->last_label, sizeof vk->last_label, "%.47s/%.47s", p->log.name,
                 p->log.nodes[p->log.n_nodes - 1].label);
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct HostCall *h = p->segments[i].piece ? NULL : call_before(&p->log, p->segments[i].first);
        if (h && !(device_wait(dev) && h->call(dev, h->context)))
            return false;
        VkCommandBufferSubmitInfo one = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
                                         .commandBuffer = p->segments[i].cb};
        VkSemaphoreSubmitInfo signal = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                        .semaphore = vk->timeline,
                                        .value = vk->submitted + 1,
                                        .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
        VkSubmitInfo2 submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                .commandBufferInfoCount = 1,
                                .pCommandBufferInfos = &one,
                                .signalSemaphoreInfoCount = 1,
                                .pSignalSemaphoreInfos = &signal};
        if (!VK_TRY(dev, vkQueueSubmit2(vk->queue, 1, &submit, VK_NULL_HANDLE)))
            return false;
        vk->submitted++;
    }
    pending_add(vk, p);
    return true;
}

bool program_run(struct Program *p) { return program_submit(p) && device_wait(p->log.dev); }

enum { PROFILE_ROWS = 256 };
static struct ProfileRow
    profile_rows[PROFILE_ROWS]; // of VKMOE_PROFILE and bench: a tool for developers, not state of a device

static void profile_add(const struct Node *n, double us) {
    for (uint32_t i = 0; i < PROFILE_ROWS; i++) {
        struct ProfileRow *r = &profile_rows[i];
        if (r->label && strcmp(r->label, n->label) != 0)
            continue;
        r->label = n->label;
        r->us += us, r->n++;
        r->flops += n->at_most ? NAN : n->flops, r->bytes += n->at_most ? NAN : n->bytes;
        return;
    }
}

// Counters of 36 bits (Intel's) begin anew every hour or so.
static uint64_t ticks_between(const struct Device *dev, const uint64_t *ticks) {
    return (ticks[1] - ticks[0]) & dev->vk->timestamp_mask;
}

static double settle_profiled(struct Program *p, const uint64_t *ticks) {
    double tick_us = p->log.dev->limits.timestamp_ns / 1000, total = 0;
    for (uint32_t i = 0; i < p->log.n_nodes; i++) {
        double us = (double)ticks_between(p->log.dev, ticks + 2 * i) * tick_us;
        profile_add(&p->log.nodes[i], us);
        total += us;
    }
    return total;
}

static double segment_ms(const struct Program *p, const uint64_t *ticks, uint32_t i) {
    return (double)ticks_between(p->log.dev, ticks + 2 * i) * p->log.dev->limits.timestamp_ns / 1e6;
}

// Of a program that is to be cut anew: each dispatch took its share of what its submits took.
static void learn(struct Program *p, const uint64_t *ticks) {
    for (uint32_t i = 0; i < p->n_segments;) {
        const struct Segment *s = &p->segments[i];
        double ms = 0, model = 0;
        for (uint32_t k = 0; k < s->n_pieces; k++)
            ms += segment_ms(p, ticks, i++);
        for (uint32_t k = s->first; k < s->end; k++)
            model += node_ms(p->log.dev, &p->log.nodes[k]);
        for (uint32_t k = s->first; k < s->end && ms < 60e3; k++) // longer is a machine that slept
            p->log.nodes[k].learnt_ms = node_ms(p->log.dev, &p->log.nodes[k]) * ms / model;
    }
}

// What programs take is held against the cost model, so that later ones are cut well: a slower device is believed at once, a faster one by and by.
static void correct_pace(struct Program *p, double ms) {
    struct Device *dev = p->log.dev;
    double model = 0;
    for (uint32_t i = 0; i < p->log.n_nodes; i++)
        model += node_model_ms(dev, &p->log.nodes[i]);
    if (model > 1 && ms > 0.05) {
        double ratio = model / ms;
        dev->pace *= ratio < 1 ? fmax(ratio, 0.25) : fmin(sqrt(ratio), 2);
        dev->pace = fmin(fmax(dev->pace, 1 / 64.0), 64); // a program of many tiny dispatches says nothing of rates
    }
}

// `again`: the program was cut badly, and what its dispatches took is known now. In larger pieces it is made a few times only, as times need not settle.
static double settle_segments(struct Program *p, const uint64_t *ticks, bool *again) {
    enum { MOST_JOINED = 10 };
    struct Device *dev = p->log.dev;
    double total = 0;
    bool too_long = false, too_short = false;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct Segment *s = &p->segments[i];
        double ms = segment_ms(p, ticks, i);
        total += ms;
        dev->longest_submit_ms = fmax(dev->longest_submit_ms, ms);
        const struct Node *n = &p->log.nodes[s->first];
        bool divides = s->end - s->first > 1 || s->n_pieces < most_pieces(n);
        too_long = too_long || (ms > SUBMIT_LIMIT * dev->submit_ms && divides);
        too_short = too_short || (s->n_pieces > 1 && !n->at_most && ms * s->n_pieces < dev->submit_ms);
    }
    correct_pace(p, total);
    *again = too_long || (too_short && p->n_joined++ < MOST_JOINED);
    if (*again)
        learn(p, ticks);
    return 1000 * total;
}

void programs_settle(struct Device *dev) {
    struct DeviceVk *vk = dev->vk;
    for (uint32_t i = 0; i < vk->n_pending; i++) {
        struct Program *p = vk->pending[i];
        if (!p || !p->queries)
            continue;
        uint32_t n = 2 * (p->profiled ? p->log.n_nodes : p->n_segments);
        uint64_t *ticks = xcalloc(n, sizeof *ticks);
        bool again = false;
        if (vkGetQueryPoolResults(vk->device, p->queries, 0, n, n * sizeof *ticks, ticks, sizeof *ticks,
                                  VK_QUERY_RESULT_64_BIT) == VK_SUCCESS)
            p->last_us = p->profiled ? settle_profiled(p, ticks) : settle_segments(p, ticks, &again);
        free(ticks);
        if (again)
            segments_drop(p); // encoded at the next submit
    }
    vk->n_pending = 0;
}

void program_free(struct Program *p) {
    if (!p)
        return;
    struct Device *dev = p->log.dev;
    if (dev->vk && !dev->is_dry) {
        device_idle(dev);
        for (uint32_t i = 0; i < dev->vk->n_pending; i++)
            if (dev->vk->pending[i] == p)
                dev->vk->pending[i] = NULL;
        segments_drop(p);
    }
    cmd_drop(&p->log);
    free(p);
}

uint32_t program_dispatches(const struct Program *p) { return p->log.n_nodes; }
bool program_uses(const struct Program *p, enum KernelId kernel) {
    for (uint32_t i = 0; i < p->log.n_nodes; i++)
        if (p->log.nodes[i].kernel == kernel)
            return true;
    return false;
}
double program_flops_of(const struct Program *p, enum KernelId kernel) {
    double flops = 0;
    for (uint32_t i = 0; i < p->log.n_nodes; i++)
        if (p->log.nodes[i].kernel == kernel)
            flops += p->log.nodes[i].flops;
    return flops;
}
bool program_writes(const struct Program *p, struct View v) {
    const struct Access reads = {v.address, v.address + v.bytes, false};
    for (uint32_t i = 0; i < p->log.n_accesses; i++)
        if (conflicts(&p->log.accesses[i], &reads))
            return true;
    return false;
}
uint32_t program_barriers(const struct Program *p) { return p->log.n_barriers; }

bool program_time(struct Program *p, uint32_t warm, uint32_t reps, double *us) {
    struct Device *dev = p->log.dev;
    for (uint32_t i = 0; i < reps; i++)
        us[i] = 0;
    for (uint32_t i = 0; i < warm + reps && !dev->is_dry; i++) {
        double start = clock_seconds();
        if (!program_run(p))
            return false;
        double wall = (clock_seconds() - start) * 1e6;
        if (i >= warm)
            us[i - warm] = device_can(dev, CAP_timestamps) ? p->last_us : wall;
    }
    return true;
}

// ---- The checker

uint32_t program_check(const struct Program *p, int without) {
    uint32_t n = p->log.n_nodes, hazards = 0;
    // Epoch of a dispatch: the number of barriers before it. Two dispatches of one epoch run in any order.
    uint32_t *epoch = xcalloc(n + 1, sizeof *epoch);
    uint32_t barriers = 0, now = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (p->log.nodes[i].barrier)
            now += (int)barriers++ != without;
        epoch[i] = now;
    }
    for (uint32_t i = 0; i < n; i++) {
        bool bad = false;
        const struct Node *a = &p->log.nodes[i];
        for (uint32_t j = i; j-- > 0 && !bad;) {
            const struct Node *b = &p->log.nodes[j];
            bad = (epoch[j] == epoch[i] || b->recorded > a->recorded) && nodes_conflict(&p->log, a, b);
        }
        hazards += bad;
    }
    free(epoch);
    return hazards;
}

static int by_time(const void *a, const void *b) {
    double x = ((const struct ProfileRow *)a)->us, y = ((const struct ProfileRow *)b)->us;
    return x < y ? 1 : x > y ? -1 : 0;
}

void profile_begin(void) {
    memset(profile_rows, 0, sizeof profile_rows);
    profile_state = 1;
}

uint32_t profile_end(const struct ProfileRow **rows) {
    uint32_t n = 0;
    profile_state = -1;
    qsort(profile_rows, PROFILE_ROWS, sizeof *profile_rows, by_time);
    while (n < PROFILE_ROWS && profile_rows[n].n)
        n++;
    *rows = profile_rows;
    return n;
}

static const char *rate_text(double count, double us, char text[24]) {
    snprintf(text, 24, isnan(count) ? "-" : "%.2f", us > 0 ? count / us / 1000 : 0);
    return text;
}

void profile_print_row(const struct ProfileRow *r, double total_us) {
    char flops[24], bytes[24];
    fprintf(stderr, "%-28s %8llu %12.1f %6.1f%% %10s %10s\n", r->label, (unsigned long long)r->n, r->us / (double)r->n,
            100 * r->us / total_us, rate_text(r->flops, r->us, flops), rate_text(r->bytes, r->us, bytes));
}

void profile_print(struct Device *dev) {
    if (!profiling() || !profile_rows[0].label)
        return;
    qsort(profile_rows, PROFILE_ROWS, sizeof *profile_rows, by_time);
    double total = 0;
    for (uint32_t i = 0; i < PROFILE_ROWS; i++)
        total += profile_rows[i].us;
    fprintf(stderr, "%s: %.1f ms in %s\n%-28s %8s %12s %7s %10s %10s\n", "profile", total / 1000, dev->name,
            "operation", "runs", "us each", "share", "GFLOP/s", "GB/s");
    for (uint32_t i = 0; i < PROFILE_ROWS && profile_rows[i].n; i++)
        profile_print_row(&profile_rows[i], total);
}
