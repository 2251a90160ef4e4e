// Arenas over large blocks of device memory, and the way of data between host and device.
#include "runtime/memory.h"
#include "runtime/parallel.h"
#include "runtime/vk.h"
#include <stdlib.h>
#include <string.h>

enum { TENSOR_ALIGNMENT = 256 };
static const uint64_t STAGING_BYTES = UINT64_C(32) << 20;

struct ArenaBlock {
    struct Block block;
    uint64_t used;
};

uint64_t block_padding(const struct Device *dev) { return dev->is_cpu ? 1 << 20 : 1 << 16; }

static int memory_type(const struct Device *dev, uint32_t allowed, VkMemoryPropertyFlags want,
                       VkMemoryPropertyFlags better) {
    const VkPhysicalDeviceMemoryProperties *m = &dev->vk->memory;
    int found = -1;
    for (uint32_t i = 0; i < m->memoryTypeCount; i++) {
        VkMemoryPropertyFlags f = m->memoryTypes[i].propertyFlags;
        if (!(allowed & (1u << i)) || (f & want) != want)
            continue;
        if ((f & better) == better)
            return (int)i;
        if (found < 0)
            found = (int)i;
    }
    return found;
}

static void register_block(struct DeviceVk *vk, struct Block *b) {
    if (vk->n_blocks == vk->block_slots) {
        vk->block_slots = vk->block_slots ? vk->block_slots * 2 : 64;
        vk->blocks = xrealloc(vk->blocks, vk->block_slots * sizeof *vk->blocks);
    }
    vk->blocks[vk->n_blocks++] = b;
}

static const char *amount(uint64_t bytes, char text[24]) {
    bool large = bytes >= UINT64_C(10) << 30;
    snprintf(text, 24, "%.1f %s", (double)bytes / (large ? 1 << 30 : 1 << 20), large ? "GiB" : "MiB");
    return text;
}

static bool out_of_memory(struct Device *dev, enum ArenaKind kind, uint64_t bytes, const char *what) {
    char more[24], used[24], all[24];
    if (dev->state != DEVICE_OK)
        return false;
    dev->state = DEVICE_FAILED;
    dev->no_room = true;
    if (kind == ARENA_HOST)
        return fail(
            "%s: no room for another %s of %s in the main memory that it can read (%s in use, %s in all); keep more "
            "on the device, or use a quantised model",
            dev->name, amount(bytes, more), what, amount(dev->host_bytes, used), amount(dev->limits.host_bytes, all));
    return fail("%s: no room for another %s of %s (%s in use, %s in all); use a smaller context or micro-batch, a "
                "quantised model, --method lora, or another --device",
                dev->name, amount(bytes, more), what, amount(dev->allocated_bytes, used),
                amount(dev->limits.memory_bytes, all));
}

bool memory_holds(const struct Device *dev, uint64_t on_device, uint64_t on_host) {
    const struct DeviceLimits *l = &dev->limits;
    return on_device <= l->memory_bytes && on_host <= l->host_bytes && on_device <= l->both_bytes &&
           on_host <= l->both_bytes - on_device;
}

bool memory_fits(const struct Device *dev, uint64_t on_device, uint64_t on_host, const char *job, const char *remedy) {
    const struct DeviceLimits *l = &dev->limits;
    char need[24], all[24];
    if (memory_holds(dev, on_device, on_host))
        return true;
    if (on_device > l->memory_bytes)
        return fail("%s needs %s and %s has %s; %s", job, amount(on_device, need), dev->name,
                    amount(l->memory_bytes, all), remedy);
    if (on_host > l->host_bytes)
        return fail("%s needs %s of host memory and %s that %s can read is free; %s", job, amount(on_host, need),
                    amount(l->host_bytes, all), dev->name, remedy);
    return fail("%s needs %s, on the device and in host memory together, and of their one memory %s is free; %s", job,
                amount(on_device + on_host, need), amount(l->both_bytes, all), remedy);
}

static void count_bytes(struct Device *dev, enum ArenaKind kind, uint64_t bytes) {
    if (kind == ARENA_HOST) {
        dev->host_bytes += bytes;
        return;
    }
    dev->allocated_bytes += bytes;
    dev->peak_bytes = max_u64(dev->peak_bytes, dev->allocated_bytes);
}

// Address and place in the table of a block whose buffer has its memory, or the end of one that has not.
static bool block_finish(struct DeviceVk *vk, struct Block *block, bool ok) {
    if (!ok) {
        vkDestroyBuffer(vk->device, block->buffer, NULL);
        vkFreeMemory(vk->device, block->memory, NULL);
        *block = (struct Block){0};
        return false;
    }
    VkBufferDeviceAddressInfo address = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                         .buffer = block->buffer};
    block->address = vkGetBufferDeviceAddress(vk->device, &address);
    register_block(vk, block);
    return true;
}

bool block_make(struct Device *dev, enum ArenaKind kind, uint64_t bytes, const char *what, struct Block *block) {
    struct DeviceVk *vk = dev->vk;
    *block = (struct Block){.bytes = bytes, .on_host = kind == ARENA_HOST};
    uint64_t whole = bytes + block_padding(dev);
    if (dev->state != DEVICE_OK)
        return false;
    if (whole > vk->max_buffer_bytes ||
        (kind == ARENA_DEVICE && dev->allocated_bytes + whole > dev->limits.memory_bytes))
        return out_of_memory(dev, kind, bytes, what);
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = whole,
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                                        VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT};
    if (!VK_MAKE(dev, block->buffer, vkCreateBuffer(vk->device, &info, NULL, &block->buffer)))
        return false;
    VkMemoryRequirements need;
    vkGetBufferMemoryRequirements(vk->device, block->buffer, &need);
    const VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    bool mapped = kind == ARENA_HOST;
    int type = -1;
    if (kind == ARENA_HOST) {
        type = memory_type(dev, need.memoryTypeBits, host, VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    } else if (device_can(dev, CAP_host_visible)) {
        type = memory_type(dev, need.memoryTypeBits, host | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                           VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
        mapped = type >= 0;
        block->slow_to_read =
            mapped && !(vk->memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    }
    if (type < 0)
        type = memory_type(dev, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = need.size,
                                     .memoryTypeIndex = (uint32_t)(type < 0 ? 0 : type)};
    VkResult result = vkAllocateMemory(vk->device, &allocate, NULL, &block->memory);
    if (result != VK_SUCCESS) {
        vkDestroyBuffer(vk->device, block->buffer, NULL);
        block->buffer = VK_NULL_HANDLE;
        if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY)
            return out_of_memory(dev, kind, bytes, what);
        return device_fail(dev, result, "vkAllocateMemory", __FILE__, __LINE__);
    }
    bool ok = VK_TRY(dev, vkBindBufferMemory(vk->device, block->buffer, block->memory, 0)) &&
              (!mapped || VK_TRY(dev, vkMapMemory(vk->device, block->memory, 0, VK_WHOLE_SIZE, 0, &block->host)));
    if (ok)
        count_bytes(dev, kind, whole);
    return block_finish(vk, block, ok);
}

bool block_import(struct Device *dev, void *host, uint64_t bytes, struct Block *block) {
    struct DeviceVk *vk = dev->vk;
    const VkExternalMemoryHandleTypeFlagBits kind = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    *block = (struct Block){.bytes = bytes - block_padding(dev), .host = host, .imported = true};
    VkExternalMemoryBufferCreateInfo external = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
                                                 .handleTypes = kind};
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .pNext = &external,
                               .size = bytes,
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    VkMemoryHostPointerPropertiesEXT allowed = {.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    if (vk->host_pointer_properties(vk->device, kind, host, &allowed) != VK_SUCCESS ||
        vkCreateBuffer(vk->device, &info, NULL, &block->buffer) != VK_SUCCESS) {
        *block = (struct Block){0};
        return false;
    }
    VkMemoryRequirements need;
    vkGetBufferMemoryRequirements(vk->device, block->buffer, &need);
    int type = memory_type(dev, need.memoryTypeBits & allowed.memoryTypeBits, 0, VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT, .handleType = kind, .pHostPointer = host};
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .pNext = &import,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = &flags,
                                     .allocationSize = bytes,
                                     .memoryTypeIndex = (uint32_t)type};
    bool ok = type >= 0 && need.size <= bytes;
    if (ok && vkAllocateMemory(vk->device, &allocate, NULL, &block->memory) != VK_SUCCESS) {
        block->memory = VK_NULL_HANDLE;
        ok = false;
    }
    ok = ok && vkBindBufferMemory(vk->device, block->buffer, block->memory, 0) == VK_SUCCESS;
    return block_finish(vk, block, ok);
}

void block_free(struct Device *dev, struct Block *block) {
    struct DeviceVk *vk = dev->vk;
    if (!vk || !block->buffer)
        return;
    for (uint32_t i = 0; i < vk->n_blocks; i++)
        if (vk->blocks[i] == block) {
            vk->blocks[i] = vk->blocks[--vk->n_blocks];
            break;
        }
    vkDestroyBuffer(vk->device, block->buffer, NULL);
    vkFreeMemory(vk->device, block->memory, NULL);
    if (!block->imported)
        *(block->on_host ? &dev->host_bytes : &dev->allocated_bytes) -= block->bytes + block_padding(dev);
    *block = (struct Block){0};
}

const struct Block *block_find(const struct Device *dev, uint64_t address, uint64_t bytes) {
    for (uint32_t i = 0; i < dev->vk->n_blocks; i++) {
        const struct Block *b = dev->vk->blocks[i];
        if (address >= b->address && address + bytes <= b->address + b->bytes)
            return b;
    }
    return NULL;
}

// ---- Arenas

void arena_init(struct Arena *a, struct Device *dev, const char *name, enum ArenaKind kind) {
    *a = (struct Arena){.dev = dev, .name = name, .kind = kind};
}

void arena_free(struct Arena *a) {
    if (a->dev && !a->dev->is_dry && a->n_blocks)
        device_idle(a->dev);
    for (uint32_t i = 0; i < a->n_blocks; i++)
        if (a->dev->vk)
            block_free(a->dev, &a->blocks[i].block);
    free(a->blocks);
    *a = (struct Arena){.dev = a->dev, .name = a->name, .kind = a->kind, .exact = a->exact, .lasting = a->lasting};
}

// Blocks must not move while registered: room for all of them is taken once.
enum { ARENA_MAX_BLOCKS = 1024 };
static const uint64_t LASTING_ALONE = UINT64_C(32) << 20;

uint64_t arena_largest(const struct Arena *a) {
    return a->dev->limits.max_allocation_bytes - 2 * block_padding(a->dev);
}

static struct ArenaBlock *arena_grow(struct Arena *a, uint64_t bytes) {
    struct Device *dev = a->dev;
    if (!a->blocks)
        a->blocks = xcalloc(ARENA_MAX_BLOCKS, sizeof *a->blocks);
    if (a->n_blocks == ARENA_MAX_BLOCKS) {
        out_of_memory(dev, a->kind, bytes, a->name);
        return NULL;
    }
    uint64_t limit = arena_largest(a);
    uint64_t size = bytes;
    bool own = a->exact || (a->kind == ARENA_HOST && !a->lasting) || (a->lasting && bytes >= LASTING_ALONE);
    if (!own)
        size = max_u64(bytes, min_u64(UINT64_C(16) << 20 << min_u64(a->n_blocks, a->lasting ? 2 : 5), limit));
    if (bytes > limit) {
        if (dev->state == DEVICE_OK) {
            dev->state = DEVICE_FAILED;
            fail("%s: a tensor of %.1f MiB in %s is above this driver's largest allocation of %.1f MiB; use a smaller "
                 "micro-batch or a quantised model",
                 dev->name, (double)bytes / (1 << 20), a->name, (double)limit / (1 << 20));
        }
        return NULL;
    }
    struct ArenaBlock *b = &a->blocks[a->n_blocks];
    if (dev->is_dry) {
        b->block = (struct Block){.address = (UINT64_C(1) << 40) + dev->dry_address, .bytes = size};
        dev->dry_address += align_up(size, TENSOR_ALIGNMENT) + TENSOR_ALIGNMENT;
        count_bytes(dev, a->kind, size + block_padding(dev));
    } else if (!block_make(dev, a->kind, size, a->name, &b->block)) {
        return NULL;
    }
    a->n_blocks++;
    b->used = 0;
    return b;
}

static uint64_t used_bytes(const struct Arena *a) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < (a->lasting ? a->n_blocks : a->current + 1); i++)
        bytes += a->blocks[i].used;
    return bytes;
}

struct Tensor arena_tensor(struct Arena *a, enum DType type, uint32_t n_dims, const uint32_t *dim) {
    struct Tensor t = tensor_shape(type, n_dims, dim);
    uint64_t need = align_up(max_u64(t.bytes, 4), TENSOR_ALIGNMENT);
    if (a->dev->state != DEVICE_OK)
        return t;
    if (a->lasting)
        for (a->current = 0; a->current + 1 < a->n_blocks; a->current++)
            if (a->blocks[a->current].used + need <= a->blocks[a->current].block.bytes)
                break;
    struct ArenaBlock *b = a->n_blocks ? &a->blocks[a->current] : NULL;
    while (b && b->used + need > b->block.bytes) {
        if (a->current + 1 < a->n_blocks) {
            b = &a->blocks[++a->current];
            b->used = 0;
        } else {
            b = NULL;
        }
    }
    if (!b) {
        b = arena_grow(a, need);
        if (!b)
            return t;
        a->current = a->n_blocks - 1;
    }
    t.address = b->block.address + b->used;
    b->used += need;
    a->used_bytes = used_bytes(a);
    a->peak_bytes = max_u64(a->peak_bytes, a->used_bytes);
    return t;
}

struct ArenaMark arena_mark(const struct Arena *a) {
    return (struct ArenaMark){a->current, a->n_blocks ? a->blocks[a->current].used : 0};
}

void arena_release(struct Arena *a, struct ArenaMark mark) {
    if (a->n_blocks == 0)
        return;
    a->current = mark.block;
    a->blocks[mark.block].used = mark.used;
    a->used_bytes = used_bytes(a);
}

void arena_clear(struct Arena *a) {
    for (uint32_t i = 0; i < a->n_blocks; i++)
        a->blocks[i].used = 0;
    a->used_bytes = 0;
}

// ---- Transfers

static bool staging_open(struct Device *dev) {
    return dev->vk->staging.buffer || block_make(dev, ARENA_HOST, STAGING_BYTES, "staging", &dev->vk->staging);
}

struct Region {
    VkBuffer from, to;
    VkBufferCopy copy;
};

// Records and submits copies; after everything before them and before everything behind.
static bool regions_submit(struct Device *dev, VkCommandBuffer *commands, const struct Region *regions, uint32_t n) {
    struct DeviceVk *vk = dev->vk;
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = vk->pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = 1};
    if (!VK_TRY(dev, vkAllocateCommandBuffers(vk->device, &allocate, commands)))
        return false;
    VkCommandBuffer cb = *commands;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkMemoryBarrier2 all = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2,
                            .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                            .srcAccessMask = VK_ACCESS_2_MEMORY_WRITE_BIT,
                            .dstStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_2_HOST_BIT,
                            .dstAccessMask = VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT};
    VkDependencyInfo dependency = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO, .memoryBarrierCount = 1, .pMemoryBarriers = &all};
    bool ok = VK_TRY(dev, vkBeginCommandBuffer(cb, &begin));
    if (ok) {
        vkCmdPipelineBarrier2(cb, &dependency);
        for (uint32_t i = 0; i < n; i++)
            vkCmdCopyBuffer(cb, regions[i].from, regions[i].to, 1, &regions[i].copy);
        vkCmdPipelineBarrier2(cb, &dependency);
        ok = VK_TRY(dev, vkEndCommandBuffer(cb));
    }
    VkCommandBufferSubmitInfo one = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = cb};
    VkSemaphoreSubmitInfo signal = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                    .semaphore = vk->timeline,
                                    .value = vk->submitted + 1,
                                    .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSubmitInfo2 submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                            .commandBufferInfoCount = 1,
                            .pCommandBufferInfos = &one,
                            .signalSemaphoreInfoCount = 1,
                            .pSignalSemaphoreInfos = &signal};
    ok = ok && VK_TRY(dev, vkQueueSubmit2(vk->queue, 1, &submit, VK_NULL_HANDLE));
    if (ok)
        vk->submitted++;
    return ok;
}

// Between a block and the beginning of a buffer of the host.
static bool copy_submit(struct Device *dev, VkCommandBuffer *commands, VkBuffer host, const struct Block *b,
                        uint64_t offset, uint64_t bytes, bool up) {
    struct Region up_region = {host, b->buffer, {0, offset, bytes}},
                  down_region = {b->buffer, host, {offset, 0, bytes}};
    return regions_submit(dev, commands, up ? &up_region : &down_region, 1);
}

// The same through the staging buffer, and waits.
static bool staging_copy(struct Device *dev, const struct Block *b, uint64_t offset, uint64_t bytes, bool up) {
    VkCommandBuffer cb = VK_NULL_HANDLE;
    bool ok = copy_submit(dev, &cb, dev->vk->staging.buffer, b, offset, bytes, up) && device_wait(dev);
    if (!ok)
        device_idle(dev);
    vkFreeCommandBuffers(dev->vk->device, dev->vk->pool, 1, &cb);
    return ok;
}

// The block of a range, and how far into it the range begins; NULL after a message, also where it is to be written and lies in a mapped file.
static const struct Block *place_of(struct Device *dev, const struct Tensor *t, uint64_t offset, uint64_t bytes,
                                    bool write, uint64_t *at) {
    const struct Block *b = block_find(dev, t->address, t->bytes);
    if (!b || offset + bytes > t->bytes) {
        fail("%s: transfer of %llu bytes at %llu outside of a tensor of %llu bytes", dev->name,
             (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)t->bytes);
        return NULL;
    }
    if (write && b->imported) {
        fail("%s: a tensor that lies in a mapped file cannot be written", dev->name);
        return NULL;
    }
    *at = t->address - b->address + offset;
    return b;
}

void *upload_room(struct Device *dev, const struct Tensor *t, uint64_t offset, uint64_t bytes) {
    uint64_t at;
    const struct Block *b = dev->state == DEVICE_OK ? place_of(dev, t, offset, bytes, true, &at) : NULL;
    if (!b || b->host)
        return b ? (uint8_t *)b->host + at : NULL;
    struct DeviceVk *vk = dev->vk;
    struct UploadSlot *slot = &vk->ring[vk->ring_next];
    if (!slot->block.buffer && !block_make(dev, ARENA_HOST, UPLOAD_BYTES, "uploads", &slot->block))
        return NULL;
    VkSemaphoreWaitInfo wait = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &vk->timeline,
                                .pValues = &slot->free_at};
    if (!VK_TRY(dev, vkWaitSemaphores(vk->device, &wait, UINT64_MAX)))
        return NULL;
    if (slot->commands)
        vkFreeCommandBuffers(vk->device, vk->pool, 1, &slot->commands);
    slot->commands = VK_NULL_HANDLE;
    return slot->block.host;
}

bool upload_send(struct Device *dev, const struct Tensor *t, uint64_t offset, uint64_t bytes) {
    uint64_t at;
    const struct Block *b = dev->state == DEVICE_OK ? place_of(dev, t, offset, bytes, true, &at) : NULL;
    if (!b || b->host)
        return b != NULL;
    struct DeviceVk *vk = dev->vk;
    struct UploadSlot *slot = &vk->ring[vk->ring_next];
    vk->ring_next = (vk->ring_next + 1) % UPLOAD_SLOTS;
    bool ok = copy_submit(dev, &slot->commands, slot->block.buffer, b, at, bytes, true);
    slot->free_at = vk->submitted;
    return ok;
}

struct MappedCopies {
    struct Device *dev;
    const struct TensorCopy *copies;
};

static void copy_mapped(void *context, uint64_t first, uint64_t end) {
    const struct MappedCopies *m = context;
    for (uint64_t i = first; i < end; i++) {
        const struct TensorCopy *c = &m->copies[i];
        memcpy((uint8_t *)tensor_host(m->dev, c->to) + c->to_offset,
               (uint8_t *)tensor_host(m->dev, c->from) + c->from_offset, c->bytes);
    }
}

bool tensors_copy(struct Device *dev, const struct TensorCopy *copies, uint32_t n) {
    struct DeviceVk *vk = dev->vk;
    if (n == 0 || dev->is_dry)
        return dev->state == DEVICE_OK;
    if (!device_wait(dev))
        return false;
    struct Region *regions = xcalloc(n, sizeof *regions);
    bool ok = true, mapped = true;
    for (uint32_t i = 0; i < n && ok; i++) {
        uint64_t from_at = 0, to_at = 0;
        const struct Block *from =
            place_of(dev, copies[i].from, copies[i].from_offset, copies[i].bytes, false, &from_at);
        const struct Block *to = place_of(dev, copies[i].to, copies[i].to_offset, copies[i].bytes, true, &to_at);
        ok = from && to;
        if (ok)
            regions[i] = (struct Region){from->buffer, to->buffer, {from_at, to_at, copies[i].bytes}};
        mapped = mapped && ok && from->host && !from->slow_to_read && to->host;
    }
    if (vk->copying) // done: the wait above
        vkFreeCommandBuffers(vk->device, vk->pool, 1, &vk->copying);
    vk->copying = VK_NULL_HANDLE;
    if (ok && mapped)
        parallel_for(n, 1, copy_mapped, &(struct MappedCopies){dev, copies});
    else
        ok = ok && regions_submit(dev, &vk->copying, regions, n);
    free(regions);
    return ok;
}

static bool transfer(struct Device *dev, const struct Tensor *t, uint64_t offset, void *data, uint64_t bytes, bool up) {
    if (dev->is_dry || bytes == 0)
        return true;
    if (dev->state != DEVICE_OK)
        return false;
    uint64_t at;
    const struct Block *b = place_of(dev, t, offset, bytes, up, &at);
    if (!b || !device_wait(dev))
        return false;
    if (b->host && (up || !b->slow_to_read)) {
        if (up)
            memcpy((uint8_t *)b->host + at, data, bytes);
        else
            memcpy(data, (uint8_t *)b->host + at, bytes);
        return true;
    }
    if (!staging_open(dev))
        return false;
    for (uint64_t done = 0; done < bytes;) {
        uint64_t part = min_u64(bytes - done, STAGING_BYTES);
        if (up)
            memcpy(dev->vk->staging.host, (uint8_t *)data + done, part);
        if (!staging_copy(dev, b, at + done, part, up))
            return false;
        if (!up)
            memcpy((uint8_t *)data + done, dev->vk->staging.host, part);
        done += part;
    }
    return true;
}

bool tensor_upload(struct Device *dev, const struct Tensor *t, uint64_t offset, const void *data, uint64_t bytes) {
    return transfer(dev, t, offset, (void *)(uintptr_t)data, bytes, true);
}

bool tensor_download(struct Device *dev, const struct Tensor *t, uint64_t offset, void *data, uint64_t bytes) {
    return transfer(dev, t, offset, data, bytes, false);
}

void *tensor_host(struct Device *dev, const struct Tensor *t) {
    if (dev->is_dry || dev->state != DEVICE_OK || t->address == 0)
        return NULL;
    const struct Block *b = block_find(dev, t->address, t->bytes);
    return b && b->host ? (uint8_t *)b->host + (t->address - b->address) : NULL;
}
