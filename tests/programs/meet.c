/* Holds things of Linux, or looks for those that another program holds; probe.c is the same for Windows.
 *
 *     meet hold TOKEN     makes one of each kind, prints `held NAME` or `failed NAME ERROR`, then `ready`, and stays
 *     meet look TOKEN     prints `met NAME` or `alone NAME` for each kind
 *     meet victim TOKEN   waits to be found
 *
 * Where both see one container every line of `look` says met; where each has its own every line says alone.
 * It deletes a file of the image: it runs as /tests/meet and nowhere else, so that nobody tries it on his own machine.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LOOPBACK_PORT = 41000 };

#define OWN_PLACE "/tests/meet"

static const char *token;

struct kind {
    const char *name;
    int (*hold)(const struct kind *kind);
    int (*look)(const struct kind *kind);
    const char *prefix;
};

static const char *named(const char *prefix)
{
    static char name[512];

    snprintf(name, sizeof(name), "%s%s", prefix, token);
    return name;
}

static int hold_file(const struct kind *kind) { return open(named(kind->prefix), O_CREAT | O_WRONLY, 0600) >= 0; }
static int look_file(const struct kind *kind) { return access(named(kind->prefix), F_OK) == 0; }
static int hold_fifo(const struct kind *kind) { return mkfifo(named(kind->prefix), 0600) == 0; }

/* A file of the image: whoever deletes it must leave it to all others. */
static int hold_deletion(const struct kind *kind) { return unlink(kind->prefix) == 0; }
static int look_deletion(const struct kind *kind) { return access(kind->prefix, F_OK) != 0; }

/* With a prefix a file's name, without one an abstract name, which only a network namespace keeps apart. */
static socklen_t unix_address(const struct kind *kind, struct sockaddr_un *address)
{
    int abstract = !*kind->prefix;

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path + abstract, named(kind->prefix), sizeof(address->sun_path) - 2);
    return offsetof(struct sockaddr_un, sun_path) + abstract + strlen(named(kind->prefix));
}

static int hold_unix(const struct kind *kind)
{
    struct sockaddr_un address;
    socklen_t size = unix_address(kind, &address);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    return !bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 5);
}

static int look_unix(const struct kind *kind)
{
    struct sockaddr_un address;
    socklen_t size = unix_address(kind, &address);

    return !connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, size);
}

static key_t key(void)
{
    long long key = 5381;

    for (const char *letter = token; *letter; letter++) key = (key * 33 + *letter) & 0x7fffffff;
    return (key_t)key;
}

static int hold_memory(const struct kind *kind) { return (void)kind, shmget(key(), 4096, IPC_CREAT | 0600) >= 0; }
static int look_memory(const struct kind *kind) { return (void)kind, shmget(key(), 4096, 0) >= 0; }
static int hold_semaphore(const struct kind *kind) { return (void)kind, semget(key(), 1, IPC_CREAT | 0600) >= 0; }
static int look_semaphore(const struct kind *kind) { return (void)kind, semget(key(), 1, 0) >= 0; }
static int hold_queue(const struct kind *kind) { return (void)kind, msgget(key(), IPC_CREAT | 0600) >= 0; }
static int look_queue(const struct kind *kind) { return (void)kind, msgget(key(), 0) >= 0; }
static int hold_mqueue(const struct kind *kind) { return mq_open(named(kind->prefix), O_CREAT | O_RDWR, 0600, NULL) >= 0; }
static int look_mqueue(const struct kind *kind) { return mq_open(named(kind->prefix), O_RDONLY) >= 0; }

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(LOOPBACK_PORT)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int hold_port(const struct kind *kind)
{
    struct sockaddr_in address = loopback();
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)kind;
    return !bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 5);
}

static int look_port(const struct kind *kind)
{
    struct sockaddr_in address = loopback();

    (void)kind;
    return !connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address));
}

static int look_port_taken(const struct kind *kind)
{
    struct sockaddr_in address = loopback();

    (void)kind;
    return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address)) != 0;
}

static int hold_victim(const struct kind *kind)
{
    (void)kind;
    if (fork() == 0) {
        execl("/proc/self/exe", "meet", "victim", token, (char *)NULL);
        _exit(1);
    }
    return 1;
}

static int is_victim(const char *process)
{
    char path[64], text[1024] = "";
    int file, size;

    snprintf(path, sizeof(path), "/proc/%.20s/cmdline", process);
    if ((file = open(path, O_RDONLY)) < 0) return 0;
    size = (int)read(file, text, sizeof(text) - 1);
    close(file);
    return size > 0 && memmem(text, (size_t)size, "victim", 6) && memmem(text, (size_t)size, token, strlen(token));
}

/* The holder's victim, or the process that a test started on the host, as /proc shows it. */
static pid_t find_victim(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;

    while (processes && (entry = readdir(processes)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && is_victim(entry->d_name)) found = atoi(entry->d_name);
    if (processes) closedir(processes);
    return found;
}

static int look_listed(const struct kind *kind) { return (void)kind, find_victim() != 0; }
static int look_signalled(const struct kind *kind) { return (void)kind, find_victim() && !kill(find_victim(), 0); }
static int look_killed(const struct kind *kind) { return (void)kind, find_victim() && !kill(find_victim(), SIGKILL); }

static int look_traced(const struct kind *kind)
{
    pid_t victim = find_victim();

    (void)kind;
    return victim && !ptrace(PTRACE_SEIZE, victim, NULL, NULL) && !ptrace(PTRACE_INTERRUPT, victim, NULL, NULL);
}

static const struct kind kinds[] = {
    {"file", hold_file, look_file, "/"},
    {"temporary file", hold_file, look_file, "/tmp/"},
    {"deletion", hold_deletion, look_deletion, "/bin/tunctl"},
    {"fifo", hold_fifo, look_file, "/tmp/fifo-"},
    {"file in /dev/shm", hold_file, look_file, "/dev/shm/"},
    {"socket", hold_unix, look_unix, "/tmp/socket-"},
    {"abstract socket", hold_unix, look_unix, ""},
    {"shared memory", hold_memory, look_memory, NULL},
    {"semaphore", hold_semaphore, look_semaphore, NULL},
    {"message queue", hold_queue, look_queue, NULL},
    {"POSIX message queue", hold_mqueue, look_mqueue, "/"},
    {"port", hold_port, look_port, NULL},
    {"port taken", NULL, look_port_taken, NULL},
    {"process listed", hold_victim, look_listed, NULL},
    {"process signalled", NULL, look_signalled, NULL},
    {"process traced", NULL, look_traced, NULL},
    /* after all that needs it alive */
    {"process killed", NULL, look_killed, NULL},
    {0},
};

static void hold_all(void)
{
    for (const struct kind *kind = kinds; kind->name; kind++) {
        if (!kind->hold) continue;
        errno = 0;
        if (kind->hold(kind)) printf("held %s\n", kind->name);
        else printf("failed %s %s\n", kind->name, strerror(errno));
    }
    printf("ready\n");
    fflush(stdout);
}

static int in_a_container(void)
{
    char own[sizeof(OWN_PLACE) + 1] = "";

    return readlink("/proc/self/exe", own, sizeof(own)) == sizeof(OWN_PLACE) - 1 && !strcmp(own, OWN_PLACE);
}

int main(int count, char **words)
{
    if (count != 3 || !in_a_container()) return 2;
    token = words[2];
    if (!strcmp(words[1], "look")) {
        for (const struct kind *kind = kinds; kind->name; kind++) printf("%s %s\n", kind->look(kind) ? "met" : "alone", kind->name);
        return 0;
    }
    if (!strcmp(words[1], "hold")) hold_all();
    for (;;) pause();
}
