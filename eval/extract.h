// From what a model said to an answer, and whether the answer is one of those accepted.
#pragma once
#include "eval/text.h"

// How texts are made equal before they are compared.
enum Normal {
    NORMAL_STRIP,  // white space at both ends
    NORMAL_ANSWER, // that, and a full stop at the end
    NORMAL_QA,     // small letters, no punctuation, no articles, single blanks (SQuAD's and TriviaQA's)
    NORMAL_DROP,   // that, word by word; numbers by value (DROP's)
    NORMAL_NUMBER, // a number's text: no thousands separators, no currency, no full stop (GSM8K's)
    NORMAL_MATH    // LaTeX as in MATH: fractions, roots, units and spaces written in one way
};

// Steps by order, of which the first that finds something counts: "first REGEX" and "last REGEX" give the first or last match's first group that
// took part, "boxed" the content of the last \boxed{}, "line" the first line that is not empty, "fence" the first block of code.
struct Extraction {
    struct ExtractStep {
        enum ExtractKind { EXTRACT_FIRST, EXTRACT_LAST, EXTRACT_BOXED, EXTRACT_LINE, EXTRACT_FENCE } kind;
        struct Pattern *pattern;
    } * steps;
    uint32_t n;
};
// False after a message that begins with `where`.
bool extraction_add(struct Extraction *e, const char *step, const char *where);
void extraction_free(struct Extraction *e);
// malloc'ed; NULL: nothing is found. Without steps: the text without white space at both ends.
char *extraction_run(const struct Extraction *e, const char *text);

// malloc'ed.
char *normal_text(enum Normal normal, const char *text);
bool normal_equal(enum Normal normal, const char *answer, const char *accepted);
// The content of the last \boxed{} or \fbox{} (or "\boxed x"); malloc'ed, NULL: none.
char *boxed_content(const char *text);
// eval/latex.c: LaTeX in one way of writing.
char *latex_normal(const char *text);
