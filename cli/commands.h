// One function per command, each in cli/cmd_NAME.c; it returns the program's exit status.
#pragma once
#include "cli/args.h"

int cmd_devices(const struct Args *args);
int cmd_info(const struct Args *args);
int cmd_chat(const struct Args *args);
int cmd_generate(const struct Args *args);
int cmd_train(const struct Args *args);
int cmd_data(const struct Args *args);
int cmd_plot(const struct Args *args);
int cmd_score(const struct Args *args);
int cmd_eval(const struct Args *args);
int cmd_bench(const struct Args *args);
int cmd_tokenize(const struct Args *args);
int cmd_init(const struct Args *args);
int cmd_convert(const struct Args *args);
int cmd_quantize(const struct Args *args);
int cmd_upcycle(const struct Args *args);
int cmd_merge(const struct Args *args);
int cmd_completion(const struct Args *args);
int cmd_man(const struct Args *args);
