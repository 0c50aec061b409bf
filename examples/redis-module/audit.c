/* audit: a small redis module that remembers what each user did last, and leaks. For scripts/demo and the tests.
 *
 *     AUDIT.NOTE user action    -> how many notes there were
 *     AUDIT.LAST user           -> the user's last action, or nil
 *
 * The leak is planted, but it is an everyday one: whoever wrote audit_note thought of the first note of a user, where
 * there is nothing to free. Build: cc -g -O1 -shared -fPIC -o audit.so audit.c
 *
 * Debian ships no redismodule.h: what is needed of the module API is declared here. A module gets each function by name
 * through the function whose address is the first word of the context that it is loaded with. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct context context;
typedef struct string string;
typedef int command(context *, string **argv, int argc);

static int (*set_module_attributes)(context *, const char *name, int version, int api_version);
static int (*create_command)(context *, const char *name, command *, const char *flags, int first, int last, int step);
static const char *(*string_text)(const string *, size_t *length);
static int (*reply_number)(context *, long long);
static int (*reply_text)(context *, const char *, size_t length);
static int (*reply_null)(context *);
static int (*reply_arity)(context *);

struct record {
    struct timespec at;
    char user[32];
    char *action;
};

enum { USERS = 1024 };
static struct record *latest[USERS]; /* by hash of the user's name; the last of two that share one wins */
static long long notes;

static struct record **slot(const char *user)
{
    unsigned hash = 2166136261u;
    while (*user)
        hash = (hash ^ (unsigned char)*user++) * 16777619u;
    return &latest[hash % USERS];
}

static struct record *new_record(const char *user, const char *action)
{
    struct record *record = malloc(sizeof *record);
    if (!record)
        abort();
    clock_gettime(CLOCK_REALTIME, &record->at);
    strncpy(record->user, user, sizeof record->user - 1);
    record->user[sizeof record->user - 1] = 0;
    record->action = strdup(action);
    return record;
}

static int audit_note(context *ctx, string **argv, int argc)
{
    if (argc != 3)
        return reply_arity(ctx);
    const char *user = string_text(argv[1], NULL);
    *slot(user) = new_record(user, string_text(argv[2], NULL)); /* and the one before? */
    return reply_number(ctx, ++notes);
}

static int audit_last(context *ctx, string **argv, int argc)
{
    if (argc != 2)
        return reply_arity(ctx);
    const char *user = string_text(argv[1], NULL);
    const struct record *record = *slot(user);
    if (!record || strncmp(record->user, user, sizeof record->user - 1) != 0)
        return reply_null(ctx);
    return reply_text(ctx, record->action, strlen(record->action));
}

int RedisModule_OnLoad(context *ctx)
{
    int (*get)(const char *name, void *function) = ((int (**)(const char *, void *))ctx)[0];
    if (get("RedisModule_SetModuleAttribs", &set_module_attributes) || get("RedisModule_CreateCommand", &create_command) ||
        get("RedisModule_StringPtrLen", &string_text) || get("RedisModule_ReplyWithLongLong", &reply_number) ||
        get("RedisModule_ReplyWithStringBuffer", &reply_text) || get("RedisModule_ReplyWithNull", &reply_null) ||
        get("RedisModule_WrongArity", &reply_arity))
        return 1;
    set_module_attributes(ctx, "audit", 1, 1);
    return create_command(ctx, "audit.note", audit_note, "write fast", 1, 1, 1) ||
           create_command(ctx, "audit.last", audit_last, "readonly fast", 1, 1, 1);
}
