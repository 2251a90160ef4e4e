// Known-answer tests: before a kernel is used for the first time with a driver, the checks that cover it run once at their smallest shape, because
// what a driver reports is no proof. A kernel that fails is switched off with one line, and the next one in its list is taken. What passed is remembered
// per driver and per SPIR-V in the cache folder.
#pragma once
#include "runtime/device.h"

// device_open, and from then on kernels are verified when first picked.
bool selftest_device_open(struct Device *dev, const char *which);
// Runs the checks of every kernel of this device again, prints a line per failure; returns the number of failures, *ran of checks.
uint32_t selftest_all(struct Device *dev, uint32_t *ran);
