/* What a Windows program reaches when it calls the Linux kernel itself, past all of Wine. */
#include "probe.h"
#include <stdio.h>
#include <string.h>

enum {
    LINUX_READ = 0, LINUX_OPEN = 2, LINUX_CLOSE = 3, LINUX_SHMGET = 29, LINUX_GETPID = 39, LINUX_SOCKET = 41,
    LINUX_CONNECT = 42, LINUX_BIND = 49, LINUX_LISTEN = 50, LINUX_KILL = 62, LINUX_PTRACE = 101, LINUX_GETDENTS64 = 217
};
enum { PTRACE_SEIZE = 0x4206, PTRACE_DETACH = 17, UNIX = 1, STREAM = 1, CREATE = 0100, DIRECTORY = 0200000, IPC_CREATE = 01000 };

static long long call(long long number, long long first, long long second, long long third, long long fourth)
{
    register long long r10 __asm__("r10") = fourth;
    long long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static long long call_path(long long number, const char *path, long long flags, long long mode)
{
    return call(number, (long long)path, flags, mode, 0);
}

struct entry {
    unsigned long long inode, offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static BOOL names_victim(const char *process)
{
    static const char WANTED[] = "victim.exe";
    char path[64], text[512];
    long long file, size, own = call(LINUX_GETPID, 0, 0, 0, 0);

    snprintf(path, sizeof(path), "%lld", own);
    if (!strcmp(path, process)) return FALSE;
    snprintf(path, sizeof(path), "/proc/%s/cmdline", process);
    if ((file = call_path(LINUX_OPEN, path, 0, 0)) < 0) return FALSE;
    size = call(LINUX_READ, file, (long long)text, sizeof(text), 0);
    call(LINUX_CLOSE, file, 0, 0, 0);
    for (long long place = 0; place + (long long)sizeof(WANTED) - 1 <= size; place++)
        if (!memcmp(text + place, WANTED, sizeof(WANTED) - 1)) return TRUE;
    return FALSE;
}

/* The Linux process of the holder's victim (or of the one that a test started on the host), as /proc shows it. */
static long long find_process(void)
{
    static char buffer[65536];
    long long directory = call_path(LINUX_OPEN, "/proc", DIRECTORY, 0), size, found = 0;

    if (directory < 0) return 0;
    while ((size = call(LINUX_GETDENTS64, directory, (long long)buffer, sizeof(buffer), 0)) > 0)
        for (long long place = 0; place < size;) {
            struct entry *entry = (struct entry *)(buffer + place);

            place += entry->length;
            if (entry->name[0] < '1' || entry->name[0] > '9' || !names_victim(entry->name)) continue;
            if (sscanf(entry->name, "%lld", &found) != 1) found = 0;
        }
    call(LINUX_CLOSE, directory, 0, 0, 0);
    return found;
}

static BOOL look_proc(const struct kind *kind)
{
    (void)kind;
    return find_process() != 0;
}

static BOOL look_signal(const struct kind *kind)
{
    (void)kind;
    return find_process() && !call(LINUX_KILL, find_process(), 0, 0, 0);
}

static BOOL look_ptrace(const struct kind *kind)
{
    long long process = find_process();

    (void)kind;
    if (!process || call(LINUX_PTRACE, PTRACE_SEIZE, process, 0, 0)) return FALSE;
    call(LINUX_PTRACE, PTRACE_DETACH, process, 0, 0);
    return TRUE;
}

struct unix_address {
    unsigned short family;
    char name[108];
};

/* An abstract name: no file, only a network namespace keeps it apart. */
static long long use_address(long long number, long long *socket)
{
    struct unix_address address = {.family = UNIX};
    size_t length = strlen(narrow_token);

    memcpy(address.name + 1, narrow_token, length);
    *socket = call(LINUX_SOCKET, UNIX, STREAM, 0, 0);
    return call(number, *socket, (long long)&address, (long long)(sizeof(address.family) + 1 + length), 0);
}

static BOOL hold_abstract(const struct kind *kind)
{
    long long socket, status = use_address(LINUX_BIND, &socket);

    (void)kind;
    return !status && !call(LINUX_LISTEN, socket, 5, 0, 0);
}

static BOOL look_abstract(const struct kind *kind)
{
    long long socket;

    (void)kind;
    return !use_address(LINUX_CONNECT, &socket);
}

static const char *unix_path(void)
{
    static char path[NAME_CHARACTERS + 8];

    snprintf(path, sizeof(path), "/tmp/%s", narrow_token);
    return path;
}

static BOOL hold_unix_file(const struct kind *kind)
{
    (void)kind;
    return call_path(LINUX_OPEN, unix_path(), CREATE, 0600) >= 0;
}

static BOOL look_unix_file(const struct kind *kind)
{
    (void)kind;
    return call_path(LINUX_OPEN, unix_path(), 0, 0) >= 0;
}

static BOOL look_unix_name(const struct kind *kind) { return GetFileAttributesW(named(kind->prefix)) != INVALID_FILE_ATTRIBUTES; }

static long long memory_key(void)
{
    long long key = 5381;

    for (const char *letter = narrow_token; *letter; letter++) key = (key * 33 + *letter) & 0x7fffffff;
    return key;
}

static BOOL hold_memory(const struct kind *kind)
{
    (void)kind;
    return call(LINUX_SHMGET, memory_key(), 4096, IPC_CREATE | 0600, 0) >= 0;
}

static BOOL look_memory(const struct kind *kind)
{
    (void)kind;
    return call(LINUX_SHMGET, memory_key(), 4096, 0, 0) >= 0;
}

const struct kind linux_kinds[] = {
    {"Linux /proc", NULL, look_proc, NULL},
    {"Linux signal", NULL, look_signal, NULL},
    {"Linux ptrace", NULL, look_ptrace, NULL},
    {"Linux abstract socket", hold_abstract, look_abstract, NULL},
    {"Linux /tmp", hold_unix_file, look_unix_file, NULL},
    {"unix path by Windows", NULL, look_unix_name, L"\\\\?\\unix\\tmp\\"},
    {"Linux shared memory", hold_memory, look_memory, NULL},
    {0},
};
