// Device memory as stacks. An arena hands out tensors from large blocks; mark and release give back everything since the mark.
// Every block has padding behind it, because some drivers read one row past the end with all lanes off.
#pragma once
#include "runtime/device.h"
#include "runtime/tensor.h"

enum ArenaKind {
    ARENA_DEVICE, // device memory
    ARENA_HOST    // host memory that the device reads through the bus: step parameters, results, staging
};
struct ArenaMark {
    uint32_t block;
    uint64_t used;
};
struct Arena {
    struct Device *dev;
    const char *name; // for messages and memory tables: "weights", "activations"
    enum ArenaKind kind;
    uint32_t n_blocks;
    struct ArenaBlock *blocks;
    uint32_t current;
    uint64_t used_bytes, peak_bytes; // of tensors, padding included
    bool exact;                      // blocks as large as the first request instead of rounded up
    bool lasting; // nothing is released: tensors go where there is room, large ones into blocks of their own
};

void arena_init(struct Arena *a, struct Device *dev, const char *name, enum ArenaKind kind);
void arena_free(struct Arena *a);
// A tensor at 256-byte alignment, contents undefined. On exhaustion the device is marked failed with one clear line (needed, available,
// remedy), and a tensor with address 0 comes back; recording with it is harmless.
struct Tensor arena_tensor(struct Arena *a, enum DType type, uint32_t n_dims, const uint32_t *dim);
#define TENSOR(arena, type, ...)                                                                                       \
    arena_tensor(arena, type, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})
// Whether a job that takes so much on the device and in host memory fits. For use before anything is loaded.
bool memory_holds(const struct Device *dev, uint64_t on_device, uint64_t on_host);
// The same; where it does not fit, one line with the figures and the remedy.
bool memory_fits(const struct Device *dev, uint64_t on_device, uint64_t on_host, const char *job, const char *remedy);
// The largest tensor that an allocation of this driver can hold.
uint64_t arena_largest(const struct Arena *a);
struct ArenaMark arena_mark(const struct Arena *a);
void arena_release(struct Arena *a, struct ArenaMark mark);
// Gives back all tensors of a lasting arena at once; its blocks stay.
void arena_clear(struct Arena *a);

// Host <-> device, device layout, whole words of 4 bytes (row strides are multiples of 4). Synchronous: waits for the device first
// where it must. `offset` and `bytes` are within the tensor.
bool tensor_upload(struct Device *dev, const struct Tensor *t, uint64_t offset, const void *data, uint64_t bytes);
bool tensor_download(struct Device *dev, const struct Tensor *t, uint64_t offset, void *data, uint64_t bytes);
// A long upload in pieces that overlaps with the reading of the next one: where to write `bytes` (at most UPLOAD_BYTES) for `offset` of a tensor
// (the tensor itself where the host can map it, else a buffer of a ring, once its last copy is done; NULL after a failure), then the start
// of their copy. device_wait tells when all have arrived. The device must not be at work on the tensor.
#define UPLOAD_BYTES (UINT64_C(16) << 20)
void *upload_room(struct Device *dev, const struct Tensor *t, uint64_t offset, uint64_t bytes);
bool upload_send(struct Device *dev, const struct Tensor *t, uint64_t offset, uint64_t bytes);
// Copies between tensors, ordered with what was submitted before and what will be. Waits for the device first.
struct TensorCopy {
    const struct Tensor *from, *to;
    uint64_t from_offset, to_offset, bytes;
};
bool tensors_copy(struct Device *dev, const struct TensorCopy *copies, uint32_t n);
// Pointer to the host's view of a tensor in an ARENA_HOST arena (coherent); NULL in a dry run.
void *tensor_host(struct Device *dev, const struct Tensor *t);
