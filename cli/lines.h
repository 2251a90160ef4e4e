// Lines from whoever talks to the program: on a terminal with editing, history and a prompt; from a pipe or a file as they are.
#pragma once
#include "runtime/base.h"

struct Lines;

// Ctrl-C: LINE_INTERRUPTED on an empty line, LINE_DISCARDED on one that held text, which is gone.
enum LineEvent { LINE_TEXT, LINE_DISCARDED, LINE_INTERRUPTED, LINE_END };
// history_path: name of the file that keeps former lines; NULL: none. Editing only where input and output are terminals.
struct Lines *lines_open(const char *history_path);
bool lines_edited(const struct Lines *l); // is there a terminal with editing?
// *line is malloc'ed, without the newline at its end (one that was pasted or typed with Alt-Enter may be within), valid until the caller frees it; NULL unless LINE_TEXT. `prompt` shows on a terminal only.
enum LineEvent lines_read(struct Lines *l, const char *prompt, char **line);
// The next line that is edited begins with this text.
void lines_prefill(struct Lines *l, const char *text);
// Puts a line (or a whole message of several lines) where the arrow keys find it again.
void lines_remember(struct Lines *l, const char *line);
void lines_close(struct Lines *l);
