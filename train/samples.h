// What a model says while it is trained: one text every so many steps, put behind the others in OUT/samples.txt under a line with the step. A
// session is opened for each and closed behind it; the run's own bits know nothing of it.
#pragma once
#include "model/session.h"
#include "model/tokenizer.h"

struct SampleOptions {
    uint64_t every;     // steps; 0: none
    const char *prompt; // names of special tokens in it stand for the tokens; NULL: the beginning of a text
    uint32_t tokens;    // at most, behind the prompt
    float temperature;
    uint64_t seed;    // every sample draws the same random numbers
    uint32_t context; // tokens of prompt and sample at most
};

// Whether there is anything to go on from, and room behind it. Before the model is loaded.
bool samples_check(const struct SampleOptions *o, const struct Tokenizer *t);
// The memory that a sample takes on a dry device, which keeps it in its peak.
bool samples_plan(const struct SampleOptions *o, struct Model *m, uint64_t *bytes);
// A run that begins behind `step` takes away what the file says of later steps.
bool samples_begin(const char *out, uint64_t step);
// *text is malloc'ed: the prompt and what the model says behind it.
bool samples_take(const struct SampleOptions *o, struct Model *m, const struct Tokenizer *t, const char *out,
                  uint64_t step, char **text);
