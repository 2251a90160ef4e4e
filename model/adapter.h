// LoRA adapters as PEFT stores them: a folder with adapter_config.json and adapter_model.safetensors, tensors named
// base_model.model.<module>.lora_A.weight (rank, in) and .lora_B.weight (out, rank); each routed expert is a module of its own. What
// the configuration states and is not known here is refused by name.
#pragma once
#include "model/model.h"

// Rank, alpha and nothing else of a folder: for memory plans and tables. targets is left 0.
bool adapter_options(const char *dir, struct LoraOptions *o);
// Puts the adapter on a model that has none. Every tensor must belong to a linear of the model and have its shape, every pair must be
// whole, and every module that the configuration names must be there. On a dry device only memory is taken.
bool adapter_load(struct Model *m, const char *dir);
// What an adapter is that is to be trained further: rank, alpha and targets, and where they have routed experts among them, marked: (n_layers,
// n_experts), 1 where an expert has one, in every layer of experts some. Whatever else the targets name must have one in every layer.
bool adapter_describe(const struct Model *m, const char *dir, struct LoraOptions *o, uint8_t *marked);
// Writes the model's adapters. The folder is made where it is missing; the configuration comes last, so that a folder without it is an
// unfinished one. base_model: what base_model_name_or_path says; NULL: null.
bool adapter_save(struct Model *m, const char *dir, const struct LoraOptions *o, const char *base_model);
