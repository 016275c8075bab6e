/* The floor of removing: floor DIR THREADS. Each thread takes the next directory, looks at the age
   of what is in it, and unlinks it, by descriptors; no ledger, no second look. Prints how many. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int root;
static char **names;
static long count, next, removed;
static time_t cut;

static int is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static void take(const char *name) {
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) || facts.st_mtime >= cut) return;
    DIR *entries = fdopendir(fd);
    for (struct dirent *entry; (entry = readdir(entries));)
        if (!is_dots(entry->d_name) && !fstatat(fd, entry->d_name, &facts, AT_SYMLINK_NOFOLLOW))
            unlinkat(fd, entry->d_name, 0);
    closedir(entries);
    if (!unlinkat(root, name, AT_REMOVEDIR)) __sync_fetch_and_add(&removed, 1);
}

static void *work(void *unused) {
    for (long i; (i = __sync_fetch_and_add(&next, 1)) < count;) take(names[i]);
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int threads = atoi(argv[2]);
    cut = time(0) - 86400;
    root = open(argv[1], O_RDONLY | O_DIRECTORY);
    DIR *entries = fdopendir(dup(root));
    long room = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (is_dots(entry->d_name)) continue;
        if (count == room) names = realloc(names, (room = room * 2 + 1024) * sizeof *names);
        names[count++] = strdup(entry->d_name);
    }
    pthread_t started[threads];
    for (int i = 0; i < threads; i++) pthread_create(&started[i], 0, work, 0);
    for (int i = 0; i < threads; i++) pthread_join(started[i], 0);
    printf("%ld\n", removed);
    return 0;
}
