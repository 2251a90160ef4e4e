// See chains.h.
#include "model/chains.h"

#include <string.h>

const char PATTERN_GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// DeepSeek LLM's words: cased letters of the scripts that have them, as its tokenizer.json lists them.
static const char PATTERN_DEEPSEEK_WORD[] =
    "\\s?["
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}"
    "\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}"
    "\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}"
    "\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}"
    "\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}"
    "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"
    "\\x{1e900}-\\x{1e943}"
    "]+";
static const char PATTERN_DEEPSEEK_MARKS[] =
    "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+";
static const char PATTERN_DEEPSEEK_CJK[] = "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+";
const char PATTERN_TRAILING_SPACE[] = "\\s+$";
// Digits as the tokenizers library counts them: with those that Unicode 17 added.
const char PATTERN_DIGIT[] = "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]";

static const char PATTERN_LINE_END[] = "[\r\n]";
// LLaMA 3 cuts numbers into threes, Qwen2 into single digits.
#define WORDS_BY(digits)                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char PATTERN_DEEPSEEK3_WORD[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

const struct Chain CHAINS[N_CHAINS] = {
    {.name = "gpt-2", .byte_level_regex = true},
    {.name = "smollm", .digits = true, .byte_level_regex = true},
    {.name = "deepseek-llm", // DeepSeek LLM, DeepSeekMoE, DeepSeek V2
     .patterns = {PATTERN_LINE_END, PATTERN_DEEPSEEK_WORD, PATTERN_DEEPSEEK_MARKS, PATTERN_TRAILING_SPACE,
                  PATTERN_DEEPSEEK_CJK},
     .digits = true},
    {.name = "deepseek-coder",
     .patterns = {PATTERN_LINE_END, "\\s?\\p{L}+", "\\s?\\p{P}+", PATTERN_DEEPSEEK_CJK},
     .digits = true},
    {.name = "deepseek-v3",
     .patterns = {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
                  PATTERN_DEEPSEEK3_WORD}},
    {.name = "llama-bpe", .patterns = {WORDS_BY("\\p{N}{1,3}")}, .ignore_merges = true},
    {.name = "qwen2", .patterns = {WORDS_BY("\\p{N}")}, .composes = true},
};

const char *chain_names(void) {
    return "gpt-2, smollm, deepseek-llm, deepseek-coder, deepseek-v3, llama-bpe and qwen2";
}

const struct Chain *chain_find(const char *name) {
    static const char *const others[][2] = {
        {"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}, {"deepseek-r1-qwen", "qwen2"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(name, others[i][0]) == 0)
            name = others[i][1];
    for (size_t i = 0; i < N_CHAINS; i++)
        if (strcmp(name, CHAINS[i].name) == 0)
            return &CHAINS[i];
    return NULL;
}

bool pretokenizer_add_chain(struct Pretokenizer *p, const struct Chain *chain, const char *where) {
    for (size_t i = 0; i < CHAIN_PATTERNS && chain->patterns[i]; i++)
        if (!pretokenizer_add_regex(p, chain->patterns[i], SPLIT_ISOLATED, false, where))
            return false;
    return (!chain->digits || pretokenizer_add_regex(p, PATTERN_DIGIT, SPLIT_ISOLATED, false, where)) &&
           (!chain->byte_level_regex || pretokenizer_add_regex(p, PATTERN_GPT2, SPLIT_ISOLATED, false, where));
}

bool pretokenizer_by_name(struct Pretokenizer *p, const char *name, const char *where) {
    const struct Chain *chain = chain_find(name);
    return chain ? pretokenizer_add_chain(p, chain, where)
                 : fail("%s: pre-tokenizer '%.80s' is not known here; known are %s", where, name, chain_names());
}
