// What template.c is made of: the syntax of template files (template_parse.c), and the built-in ones with the fingerprints of the
// templates they stand for (template_known.c).
#pragma once
#include "model/template.h"

enum { TEMPLATE_MAX_BYTES = 1 << 20 }; // of a template file

// Fills the texts and switches of t (zeroed). `where` names the file in messages.
bool template_parse(struct Template *t, const char *text, size_t bytes, const struct Tokenizer *tokenizer,
                    const char *where);

const char *template_built_in(const char *name); // its text; NULL: there is none
// The built-in template that a model's Jinja text stands for, or NULL; *default_system is malloc'ed or NULL. `fingerprint` is told
// either way.
const char *template_recognise(const char *jinja, char **default_system, char fingerprint[17]);
