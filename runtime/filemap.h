// A file's bytes as device memory, mapped instead of copied: where the device reads the host's own memory (processors and integrated cards)
// and its driver imports it (VK_EXT_external_memory_host). Read-only: what would write to a tensor of it is refused. The page cache holds what
// is used, so a file may be larger than the memory. The file must stay as it is meanwhile: one that is made shorter (or cannot be read any more)
// ends the program with one line and status 1.
#pragma once
#include "runtime/device.h"

// Device addresses in a file are multiples of this, because kernels load 16 bytes at once.
enum { FILEMAP_ALIGNMENT = 16 };

struct FileMap;
// Maps the regular file that is open as `fd`, which may be closed afterwards. NULL, without a message, where the device or the file system does
// not go along: then the file is to be copied. On a dry device addresses are only counted.
struct FileMap *filemap_open(struct Device *dev, int fd, uint64_t bytes, const char *name);
// The device address of `bytes` bytes from `offset` of the file; 0, without a message: none (an odd offset, more than one allocation of the
// driver holds, or the driver refuses). The file is imported in pieces as large as the driver lets them be; they overlap where a
// range would lie in two of them.
uint64_t filemap_address(struct FileMap *f, uint64_t offset, uint64_t bytes);
// Has the system begin to read what has got an address, where the free memory holds all of that.
void filemap_read_ahead(struct FileMap *f);
void filemap_close(struct FileMap *f); // NULL: nothing
// Whether the driver takes a mapped file and the device reads there what the file says.
bool filemap_works(struct Device *dev);
