// What libc and ld.so keep for themselves: nothing of it may be reported. argv[1] names what the program uses.
#include "case.h"
#include <aio.h>
#include <dirent.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <fts.h>
#include <glob.h>
#include <grp.h>
#include <iconv.h>
#include <langinfo.h>
#include <libintl.h>
#include <locale.h>
#include <netdb.h>
#include <printf.h>
#include <pwd.h>
#include <regex.h>
#include <search.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <wchar.h>
#include <wordexp.h>

static Slot global, more[100];
static void *waiting(void *_) {
    (void)_;
    park();
    return 0;
}
static void threads(void) {
    for (int i = 0; i < 3; i++) start(waiting);
}
static void *nothing(void *_) { return _; }
static void ended_threads(void) {
    pthread_t all[3];
    for (int i = 0; i < 3; i++) check(pthread_create(&all[i], 0, nothing, 0) == 0);
    for (int i = 0; i < 3; i++) pthread_join(all[i], 0);
}
static Slot *loaded_tls(void) {
    global = dlopen(LIBRARY, RTLD_NOW);
    check(global != 0);
    Slot *(*get)(void) = (Slot * (*)(void)) dlsym(global, "loaded_tls");
    return get();
}
static void *tls_user(void *_) {
    (void)_;
    *loaded_tls() = 0;
    park();
    return 0;
}
static void library_tls(void) { *loaded_tls() = 0; }
static void library_tls_of_threads(void) {
    for (int i = 0; i < 3; i++) start(tls_user);
}
static void library(void) {
    global = dlopen(LIBRARY, RTLD_NOW);
    check(global != 0);
}
static void closed_library(void) {
    library();
    check(dlclose(global) == 0);
    global = 0;
}
static void library_apart(void) {
    global = dlmopen(LM_ID_NEWLM, LIBRARY, RTLD_NOW);
    check(global != 0);
}
static void library_deep(void) {
    global = dlopen(LIBRARY, RTLD_NOW | RTLD_DEEPBIND);
    check(global != 0);
}
static void library_error(void) { check(dlopen("/no/such/library.so", RTLD_NOW) == 0); }

static void file(void) {
    FILE *open = fopen("/etc/passwd", "r");
    check(open && fgetc(open) != EOF);
    global = open;
}
static void streams(void) {
    static char *text;
    static size_t size;
    FILE *memory = open_memstream(&text, &size);
    check(memory && fputs("text", memory) >= 0 && fflush(memory) == 0);
    more[0] = memory;
    FILE *wide = fopen("wide", "w");
    check(wide && fwprintf(wide, L"%ls", L"wide") > 0);
    more[1] = wide;
}
static void output(void) {
    printf("a line\n");
    fprintf(stderr, "%s", "");
}
static void pipe_to_program(void) {
    FILE *open = popen("exec cat", "w");
    check(open && fputs("", open) >= 0);
    global = open;
}
static void directory(void) {
    DIR *open = opendir("/");
    check(open && readdir(open));
    global = open;
}

static void locale(void) { check(setlocale(LC_ALL, "C.UTF-8") != 0 && wcslen(L"x") == 1 && nl_langinfo(CODESET) != 0); }
static void own_locale(void) {
    global = newlocale(LC_ALL_MASK, "C.UTF-8", 0);
    check(global && uselocale(global) != 0);
}
static void conversion(void) {
    global = iconv_open("UTF-8", "ISO-8859-15");
    check(global != (void *)-1);
    char in[] = "text", out[32], *from = in, *to = out;
    size_t left = 4, room = 32;
    check(iconv(global, &from, &left, &to, &room) == 0);
}
static void closed_conversion(void) {
    conversion();
    iconv_close(global);
    global = 0;
}
static void messages(void) {
    bindtextdomain("verdicts", "/no/such/folder");
    bind_textdomain_codeset("verdicts", "UTF-8");
    textdomain("verdicts");
    check(gettext("text") != 0 && strerror(9999) != 0 && strsignal(99) != 0);
}

static void users(void) { check(getpwnam("root") && getgrgid(0)); }
static void all_users(void) {
    setpwent();
    while (getpwent()) {
    }
}
static void hosts(void) {
    struct addrinfo *found = 0;
    if (getaddrinfo("localhost", "80", 0, &found) == 0) freeaddrinfo(found);
    found = 0;
}
static void services(void) {
    getservbyname("http", "tcp");
    gethostbyname("localhost");
}
static void environment(void) {
    static char words[] = "VERDICTS_A=1";
    check(putenv(words) == 0);
    for (int i = 0; i < 20; i++) {
        char value[20];
        snprintf(value, sizeof value, "%d", i);
        check(setenv("VERDICTS_B", value, 1) == 0);
    }
    unsetenv("VERDICTS_A");
}
static void empty(void) {}
static void fork_handlers(void) {
    for (int i = 0; i < 100; i++) check(pthread_atfork(empty, empty, empty) == 0);
}
static void exit_handlers(void) {
    for (int i = 0; i < 100; i++) check(atexit(empty) == 0);
}
static void quick_exit_handlers(void) {
    for (int i = 0; i < 100; i++) check(at_quick_exit(empty) == 0);
}
static void keys(void) {
    pthread_key_t key;
    for (int i = 0; i < 64; i++) check(pthread_key_create(&key, 0) == 0 && pthread_setspecific(key, &global) == 0);
}
static void clock_zone(void) {
    setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
    tzset();
    time_t now = 1000000000;
    check(localtime(&now) && ctime(&now));
}
static void expressions(void) {
    static regex_t compiled;
    check(regcomp(&compiled, "^(a|b)*c{2,5}$", REG_EXTENDED) == 0 && regexec(&compiled, "abcc", 0, 0, 0) == 0);
    static glob_t found;
    check(glob("/*", 0, 0, &found) == 0);
    static wordexp_t words;
    check(wordexp("a b $HOME", &words, WRDE_NOCMD) == 0);
}
static void tree(void) {
    static char *folder[] = {"/etc", 0};
    FTS *walk = fts_open(folder, FTS_PHYSICAL, 0);
    check(walk && fts_read(walk));
    global = walk;
}
static void table(void) {
    check(hcreate(100));
    static char key[] = "key";
    check(hsearch((ENTRY){.key = key}, ENTER));
}
static void stack_trace(void) {
    void *frames[20];
    check(backtrace(frames, 20) > 0);
}
static void thread_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD};
    static timer_t timer;
    check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    wait_for_threads(2);
}
static void reading(void) {
    static struct aiocb control;
    static char bytes[16];
    control.aio_fildes = open("/etc/passwd", O_RDONLY);
    control.aio_buf = bytes;
    control.aio_nbytes = sizeof bytes;
    check(aio_read(&control) == 0);
    const struct aiocb *list[] = {&control};
    check(aio_suspend(list, 1, 0) == 0);
}
static void semaphore(void) {
    char name[40];
    snprintf(name, sizeof name, "/verdicts.%d", getpid());
    sem_t *open = sem_open(name, O_CREAT, 0600, 1);
    check(open != SEM_FAILED);
    sem_unlink(name);
    global = open;
}
static void logging(void) {
    openlog("verdicts", LOG_PID, LOG_USER);
    syslog(LOG_DEBUG, "a test program of leakscan");
}
static int print_it(FILE *to, const struct printf_info *info, const void *const *values) {
    (void)info, (void)values;
    return fputs("it", to);
}
static int describe_it(const struct printf_info *info, size_t number, int *types, int *sizes) {
    (void)info;
    if (number > 0) types[0] = PA_POINTER, sizes[0] = 8;
    return 1;
}
static void print_function(void) { check(register_printf_specifier('Y', print_it, describe_it) == 0); }
static NOINLINE void child(void) {
    // Threads of the parent are not there; what they have is kept.
    start(waiting);
    *loaded_tls() = 0;
    pid_t pid = fork();
    if (pid == 0) {
        say("ends");
        exit(0);
    }
    check(waitpid(pid, 0, 0) == pid);
    syscall(SYS_exit_group, 0);
}

static const struct choice own[] = {
    {"threads", threads},
    {"ended_threads", ended_threads},
    {"own_library", library},
    {"own_closed_library", closed_library},
    {"library_apart", library_apart},
    {"library_deep", library_deep},
    {"library_error", library_error},
    {"own_library_tls", library_tls},
    {"own_library_tls_of_threads", library_tls_of_threads},
    {"file", file},
    {"streams", streams},
    {"output", output},
    {"popen", pipe_to_program},
    {"directory", directory},
    {"locale", locale},
    {"own_locale", own_locale},
    {"conversion", conversion},
    {"closed_conversion", closed_conversion},
    {"messages", messages},
    {"users", users},
    {"all_users", all_users},
    {"hosts", hosts},
    {"services", services},
    {"environment", environment},
    {"fork_handlers", fork_handlers},
    {"exit_handlers", exit_handlers},
    {"quick_exit_handlers", quick_exit_handlers},
    {"keys", keys},
    {"zone", clock_zone},
    {"expressions", expressions},
    {"tree", tree},
    {"table", table},
    {"stack_trace", stack_trace},
    {"own_thread_timer", thread_timer},
    {"aio", reading},
    {"semaphore", semaphore},
    {"syslog", logging},
    {"print_function", print_function},
    {"child", child},
};
MAIN_ENDS(own)
