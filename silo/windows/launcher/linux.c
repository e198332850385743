/* See linux.h. Numbers and structures: Linux, x86-64 (include/uapi/asm-generic, arch/x86/entry/syscalls/syscall_64.tbl). */
#include "linux.h"

enum {
    CALL_READ = 0,
    CALL_WRITE = 1,
    CALL_OPEN = 2,
    CALL_CLOSE = 3,
    CALL_FSTAT = 5,
    CALL_POLL = 7,
    CALL_SIGACTION = 13,
    CALL_IOCTL = 16,
    CALL_GETPID = 39,
    CALL_SENDTO = 44,
    CALL_RECVMSG = 47,
    CALL_GETSOCKOPT = 55,
    CALL_WAIT4 = 61,
    CALL_KILL = 62,
    CALL_FCNTL = 72,
    CALL_RENAME = 82,
    CALL_UNLINK = 87,
    CALL_EXIT_GROUP = 231,
    CALL_ACCEPT4 = 288,
    CALL_EVENTFD2 = 290,
    CALL_PIDFD_OPEN = 434,
};

enum { EINTR_ = 4, CLOSE_ON_EXEC = 02000000, NO_SIGNAL = 0x4000, TRUNCATED_LENGTH = 0x20, RECEIVED_PRIVATE = 0x40000000 };

struct vector {
    void *base;
    uint64_t size;
};

struct message {
    void *name;
    uint32_t name_size;
    struct vector *vectors;
    uint64_t vector_count;
    void *control;
    uint64_t control_size;
    uint32_t flags;
};

struct control {
    uint64_t size;
    int32_t level;
    int32_t type;
    int32_t descriptors[LINUX_MAX_PASSED];
};

struct poll_entry {
    int32_t descriptor;
    int16_t events;
    int16_t happened;
};

struct file_status {
    uint64_t device, inode, links;
    uint32_t mode;
    uint8_t rest[256];
};

struct terminal_modes {
    uint32_t input, output, control, local;
    uint8_t line, characters[32];
};

static int64_t call(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e)
{
    register int64_t r10 __asm__("r10") = d;
    register int64_t r8 __asm__("r8") = e;
    register int64_t r9 __asm__("r9") = 0;
    int64_t answer;

    do {
        __asm__ volatile("syscall"
                         : "=a"(answer)
                         : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                         : "rcx", "r11", "memory");
    } while (answer == -EINTR_);
    return answer;
}

static int64_t address(const void *pointer)
{
    return (int64_t)(uintptr_t)pointer;
}

/* A Wine that intercepts system calls of Windows code would take the number for one of Windows' own. */
int linux_works(void)
{
    int32_t listening = 0;
    uint32_t size = sizeof(listening);
    int64_t answer = call(CALL_GETSOCKOPT, 3, 1, 30, address(&listening), address(&size));

    return answer == 0 && listening == 1 && call(CALL_GETPID, 0, 0, 0, 0, 0) > 0;
}

int linux_pid(void)
{
    return (int)call(CALL_GETPID, 0, 0, 0, 0, 0);
}

static int wait_for(int descriptor, int16_t events, int timeout_ms)
{
    struct poll_entry entry = {descriptor, events, 0};

    return call(CALL_POLL, address(&entry), 1, timeout_ms, 0, 0) > 0;
}

int linux_accept(int listener)
{
    int64_t answer;

    while ((answer = call(CALL_ACCEPT4, listener, 0, 0, CLOSE_ON_EXEC, 0)) == -LINUX_EAGAIN)
        wait_for(listener, LINUX_POLLIN, -1);
    return (int)answer;
}

int64_t linux_receive(int socket, void *data, size_t size, int *descriptors, int *count)
{
    struct control control;
    struct vector vector = {data, size};
    struct message message = {0};
    int64_t answer;

    *count = 0;
    control.size = 0;
    message.vectors = &vector;
    message.vector_count = 1;
    message.control = &control;
    message.control_size = sizeof(control);
    answer = call(CALL_RECVMSG, socket, address(&message), RECEIVED_PRIVATE | TRUNCATED_LENGTH, 0, 0);
    if (answer >= 0 && message.control_size >= 16 && control.level == 1 && control.type == 1) {
        *count = (int)((control.size - 16) / sizeof(int32_t));
        for (int index = 0; index < *count; index++) descriptors[index] = control.descriptors[index];
    }
    return answer;
}

int linux_send(int socket, const void *data, size_t size)
{
    return (int)call(CALL_SENDTO, socket, address(data), (int64_t)size, NO_SIGNAL, 0);
}

int64_t linux_read(int descriptor, void *data, size_t size)
{
    int64_t answer;

    while ((answer = call(CALL_READ, descriptor, address(data), (int64_t)size, 0, 0)) == -LINUX_EAGAIN)
        wait_for(descriptor, LINUX_POLLIN, -1);
    return answer;
}

int64_t linux_read_or_wake(int descriptor, int wake, void *data, size_t size)
{
    for (;;) {
        struct poll_entry entries[2] = {{descriptor, LINUX_POLLIN, 0}, {wake, LINUX_POLLIN, 0}};
        int64_t answer = call(CALL_POLL, address(entries), 2, -1, 0, 0);

        if (answer < 0) return answer;
        if (entries[1].happened) return -LINUX_EAGAIN;
        answer = call(CALL_READ, descriptor, address(data), (int64_t)size, 0, 0);
        if (answer != -LINUX_EAGAIN) return answer;
    }
}

int linux_write(int descriptor, const void *data, size_t size)
{
    const char *next = data;

    while (size) {
        int64_t answer = call(CALL_WRITE, descriptor, address(next), (int64_t)size, 0, 0);

        if (answer == -LINUX_EAGAIN) {
            wait_for(descriptor, LINUX_POLLOUT, -1);
            continue;
        }
        if (answer < 0) return (int)answer;
        next += answer;
        size -= (size_t)answer;
    }
    return 0;
}

void linux_close(int descriptor)
{
    if (descriptor >= 0) call(CALL_CLOSE, descriptor, 0, 0, 0, 0);
}

int linux_open(const char *path)
{
    return (int)call(CALL_OPEN, address(path), LINUX_O_RDONLY | CLOSE_ON_EXEC, 0, 0, 0);
}

int linux_keep_private(int descriptor)
{
    return (int)call(CALL_FCNTL, descriptor, 2, 1, 0, 0);
}

enum linux_kind linux_kind(int descriptor)
{
    struct file_status status = {0};
    struct terminal_modes modes;

    if (call(CALL_FSTAT, descriptor, address(&status), 0, 0, 0) < 0) return LINUX_STREAM;
    switch (status.mode & 0170000) {
    case 0100000:
        return LINUX_FILE;
    case 0020000:
        return call(CALL_IOCTL, descriptor, 0x5401, address(&modes), 0, 0) < 0 ? LINUX_CHARACTER_DEVICE : LINUX_TERMINAL;
    default:
        return LINUX_STREAM;
    }
}

int linux_event(void)
{
    return (int)call(CALL_EVENTFD2, 0, CLOSE_ON_EXEC, 0, 0, 0);
}

void linux_make_raw(int terminal)
{
    struct terminal_modes modes;

    if (call(CALL_IOCTL, terminal, 0x5401, address(&modes), 0, 0) < 0) return;
    modes.input &= ~(uint32_t)(01 | 02 | 010 | 040 | 0100 | 0200 | 0400 | 02000); /* IGNBRK … IXON */
    modes.output &= ~(uint32_t)01;                                               /* OPOST */
    modes.local &= ~(uint32_t)(01 | 02 | 010 | 0100 | 0100000);                  /* ISIG ICANON ECHO ECHONL IEXTEN */
    modes.control = (modes.control & ~(uint32_t)(060 | 0400)) | 060;             /* no PARENB, CS8 */
    modes.characters[6] = 1;                                                     /* VMIN */
    modes.characters[5] = 0;                                                     /* VTIME */
    call(CALL_IOCTL, terminal, 0x5402, address(&modes), 0, 0);
}

int linux_kill(int pid, int number)
{
    return (int)call(CALL_KILL, pid, number, 0, 0, 0);
}

int linux_rename(const char *from, const char *to)
{
    return (int)call(CALL_RENAME, address(from), address(to), 0, 0, 0);
}

int linux_unlink(const char *path)
{
    return (int)call(CALL_UNLINK, address(path), 0, 0, 0, 0);
}

int linux_watch(int pid)
{
    return (int)call(CALL_PIDFD_OPEN, pid, 0, 0, 0, 0);
}

void linux_wait_readable(int descriptor, int timeout_ms)
{
    wait_for(descriptor, LINUX_POLLIN, timeout_ms);
}

int linux_is_readable(int descriptor, int timeout_ms)
{
    return wait_for(descriptor, LINUX_POLLIN, timeout_ms);
}

void linux_ignore_children(void)
{
    struct {
        uint64_t handler, flags, restorer, mask;
    } action = {1, 0, 0, 0}; /* SIG_IGN */

    call(CALL_SIGACTION, LINUX_SIGCHLD, address(&action), 0, 8, 0);
    while (call(CALL_WAIT4, -1, 0, 1 /* WNOHANG */, 0, 0) > 0) {} /* those that ended before */
}

void linux_exit(int status)
{
    for (;;) call(CALL_EXIT_GROUP, status, 0, 0, 0, 0);
}
