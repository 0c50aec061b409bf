// flags: -shared -fPIC
// A realloc that is held up when its work is done. To be preloaded behind libleakscan.so.
#include <semaphore.h>
#include <stddef.h>

void *__libc_realloc(void *old, size_t size);

static sem_t *done, *go_on;
void hold_next_realloc(sem_t *when_done, sem_t *until) {
    go_on = until;
    done = when_done;
}

void *realloc(void *old, size_t size) {
    void *block = __libc_realloc(old, size);
    sem_t *tell = done;
    if (tell) {
        done = 0;
        sem_post(tell);
        while (sem_wait(go_on) != 0) {
        }
    }
    return block;
}
