// flags: -shared -fPIC
// An sqlite3 extension with a function slug(TEXT). It gives sqlite a copy of its result, and forgets its own.
#include <ctype.h>
#include <sqlite3ext.h>
#include <stdlib.h>
SQLITE_EXTENSION_INIT1

enum { LONGEST = 300 };

static void slug(sqlite3_context *context, int count, sqlite3_value **values) {
    const unsigned char *from = sqlite3_value_text(values[0]);
    char *text = malloc(LONGEST + 1); // lost
    int length = 0;
    for (; from && *from && length < LONGEST; from++)
        if (isalnum(*from)) text[length++] = (char)tolower(*from);
    text[length] = 0;
    sqlite3_result_text(context, text, length, SQLITE_TRANSIENT);
}

int sqlite3_extension_init(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
    SQLITE_EXTENSION_INIT2(api);
    return sqlite3_create_function(db, "slug", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, slug, NULL, NULL);
}
