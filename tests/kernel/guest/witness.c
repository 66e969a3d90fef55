/* What the guest's shell cannot see or do by itself. It is a second opinion on force_swap.
 *
 *   witness resident FILE      bytes of FILE in the page cache (mincore)
 *   witness hold FILE STATE    map FILE, touch each page, write "ready" into STATE, keep it mapped
 *   witness as UID COMMAND...  run COMMAND as UID, with no group and no capability
 *   witness writable DIR...    try to open each file of each DIR for writing and to make an entry
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static unsigned char *map_whole(const char *path, size_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0) die(path);
    *bytes = (size_t)facts.st_size;
    void *map = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) die(path);
    close(fd);
    return map;
}

static int resident(const char *path) {
    size_t bytes = 0, in = 0;
    unsigned char *map = map_whole(path, &bytes);
    size_t pages = (bytes + 4095) / 4096;
    unsigned char *flags = malloc(pages);
    if (flags == NULL || mincore(map, bytes, flags) != 0) die("mincore");
    for (size_t page = 0; page < pages; page++) in += flags[page] & 1;
    printf("%zu\n", in * 4096);
    return 0;
}

static void hold(const char *path, const char *state) {
    size_t bytes = 0;
    unsigned char *map = map_whole(path, &bytes);
    volatile unsigned char sum = 0;
    for (size_t at = 0; at < bytes; at += 4096) sum = (unsigned char)(sum + map[at]);
    FILE *file = fopen(state, "w");
    if (file == NULL || fputs("ready\n", file) < 0 || fclose(file) != 0) die(state);
    for (;;) pause();
}

static void as(const char *uid, char **command) {
    unsigned number = (unsigned)strtoul(uid, NULL, 10);
    if (setgroups(0, NULL) != 0 || setresgid(number, number, number) != 0 ||
        setresuid(number, number, number) != 0)
        die("setuid");
    execvp(command[0], command);
    die(command[0]);
}

/* One line for each door that is open, then a count: tried=N open=M. */
static int writable(char **directories) {
    unsigned tried = 0, opened = 0;
    char path[4096];
    for (; *directories != NULL; directories++) {
        DIR *stream = opendir(*directories);
        if (stream == NULL) die(*directories);
        for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
            if (entry->d_type == DT_DIR) continue;
            snprintf(path, sizeof path, "%s/%s", *directories, entry->d_name);
            tried++;
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            if (fd < 0 && errno != EACCES && errno != EPERM) die(path);
            if (fd < 0 && chmod(path, 0666) != 0) continue;
            if (fd >= 0) close(fd);
            opened++;
            printf("open %s\n", path);
        }
        closedir(stream);
        snprintf(path, sizeof path, "%s/made-by-witness", *directories);
        tried++;
        if (mkdir(path, 0777) == 0) {
            opened++;
            printf("open %s\n", path);
            rmdir(path);
        }
    }
    printf("tried=%u open=%u\n", tried, opened);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "resident") == 0) return resident(argv[2]);
    if (argc == 4 && strcmp(argv[1], "hold") == 0) hold(argv[2], argv[3]);
    if (argc > 3 && strcmp(argv[1], "as") == 0) as(argv[2], argv + 3);
    if (argc > 2 && strcmp(argv[1], "writable") == 0) return writable(argv + 2);
    fprintf(stderr, "usage: witness resident|hold|as|writable ...\n");
    return 2;
}
