/* A process with memory that does not compress. It stands for a desktop, a browser, a service.
 *
 *   victim MIB STATE [lock]
 *
 * It fills MIB mebibytes, optionally locks them, then writes "ready" into the file STATE.
 * On SIGUSR1 it reads all pages back and writes "verified" or "corrupt N" into STATE:
 * what the kernel paged out must come back as it was. It ends by a signal.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { WORDS = 512 }; /* of eight bytes in one page */

static volatile sig_atomic_t asked;

static void on_usr1(int number) {
    (void)number;
    asked = 1;
}

/* xorshift64: each page has its own seed, so no page is like another one. */
static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void say(const char *path, const char *text) {
    char fresh[512];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 || rename(fresh, path) != 0) {
        perror(path);
        exit(1);
    }
}

static uint64_t seed_of(size_t page) { return (page + 1) * 0x9E3779B97F4A7C15ull; }

static size_t corrupt_pages(const uint64_t *memory, size_t pages) {
    size_t corrupt = 0;
    for (size_t page = 0; page < pages; page++) {
        uint64_t state = seed_of(page), bad = 0;
        for (size_t word = 0; word < WORDS; word++)
            bad |= memory[page * WORDS + word] ^ next(&state);
        corrupt += bad != 0;
    }
    return corrupt;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: victim MIB STATE [lock]\n");
        return 2;
    }
    size_t pages = strtoul(argv[1], NULL, 10) * 256, bytes = pages * WORDS * sizeof(uint64_t);
    uint64_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (size_t page = 0; page < pages; page++) {
        uint64_t state = seed_of(page);
        for (size_t word = 0; word < WORDS; word++) memory[page * WORDS + word] = next(&state);
    }
    if (argc > 3 && strcmp(argv[3], "lock") == 0 && mlock(memory, bytes) != 0) {
        perror("mlock");
        return 1;
    }
    struct sigaction action = {.sa_handler = on_usr1};
    sigset_t usr1, before;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, &before); /* taken only inside sigsuspend: none is lost */
    sigaction(SIGUSR1, &action, NULL);
    say(argv[2], "ready\n");
    for (;;) {
        sigsuspend(&before);
        if (!asked) continue;
        asked = 0;
        char text[64];
        size_t corrupt = corrupt_pages(memory, pages);
        snprintf(text, sizeof text, corrupt ? "corrupt %zu\n" : "verified\n", corrupt);
        say(argv[2], text);
    }
}
