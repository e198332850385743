/* The first process of a Linux container that is begun ahead of its order. It waits until the guest's agent says which program the
 * container was made for, and becomes that: all that crun did for this process (namespaces, root, user, capabilities, seccomp)
 * stays.
 *
 *   3  what to become, from the agent: u32 size of the rest, u32 count of arguments, u32 count of variables, then that many
 *      strings, each ended by NUL (little endian)
 *   4  to the agent: i32, the errno that kept the program from starting; its end without one says that it has started
 *   5  this program, which has no name in the container
 *
 * No C library: it has no memory of its own before the order, and what is in a template is in every clone.
 * Numbers of system calls: Linux, x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
 */
#include <stddef.h>
#include <stdint.h>

enum { READ = 0, WRITE = 1, MMAP = 9, EXECVE = 59, FCNTL = 72, EXIT_GROUP = 231 };
enum { ORDER = 3, ANSWER = 4, SELF = 5 };
enum { NO_ENTRY = 2, EXEC_FORMAT = 8, ACCESS = 13, NOT_DIRECTORY = 20, NAME_TOO_LONG = 36, INTERRUPTED = 4 };
enum { MAX_ORDER = 1 << 20, MAX_PATH = 4096, CANNOT_WORK = 125 };

static const char USUAL_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long answer;

    __asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return answer;
}

static void leave(void)
{
    for (;;) call(EXIT_GROUP, CANNOT_WORK, 0, 0, 0, 0, 0);
}

static void *allocate(size_t size)
{
    long memory = call(MMAP, 0, (long)size, 3 /* read, write */, 0x22 /* private, anonymous */, -1, 0);

    if (memory < 0 && memory > -4096) leave();
    return (void *)memory;
}

static void read_whole(char *data, size_t size)
{
    while (size) {
        long count = call(READ, ORDER, (long)data, (long)size, 0, 0, 0);

        if (count == -INTERRUPTED) continue;
        if (count <= 0) leave();
        data += count;
        size -= (size_t)count;
    }
}

static size_t length_of(const char *text)
{
    size_t length = 0;

    while (text[length]) length++;
    return length;
}

/* `count` strings from `*next` on, as execve takes them. */
static char **take_strings(char **next, const char *end, uint32_t count)
{
    char **strings = allocate(((size_t)count + 1) * sizeof(char *));

    for (uint32_t index = 0; index < count; index++) {
        if (*next >= end) leave();
        strings[index] = *next;
        *next += length_of(*next) + 1;
    }
    strings[count] = NULL;
    return strings;
}

static const char *find_path(char **variables)
{
    for (; *variables; variables++) {
        const char *text = *variables;

        if (text[0] == 'P' && text[1] == 'A' && text[2] == 'T' && text[3] == 'H' && text[4] == '=') return text + 5;
    }
    return USUAL_PATH;
}

static int execute(const char *path, char **arguments, char **variables)
{
    return (int)-call(EXECVE, (long)path, (long)arguments, (long)variables, 0, 0, 0);
}

/* Comes back with the errno that says most: a file that may not be run rather than none. */
static int search(const char *places, char **arguments, char **variables)
{
    char path[MAX_PATH];
    size_t name = length_of(arguments[0]) + 1;
    int found = NO_ENTRY;

    for (;;) {
        size_t size = 0;
        int error;

        while (places[size] && places[size] != ':') size++;
        if (size + 1 + name <= sizeof(path)) {
            size_t end = 0;

            for (; end < size; end++) path[end] = places[end];
            if (size) path[end++] = '/';
            for (size_t index = 0; index < name; index++) path[end + index] = arguments[0][index];
            error = execute(path, arguments, variables);
            if (error == ACCESS) found = ACCESS;
            else if (error != NO_ENTRY && error != NOT_DIRECTORY && error != NAME_TOO_LONG) return error;
        }
        if (!places[size]) return found;
        places += size + 1;
    }
}

static int has_slash(const char *text)
{
    for (; *text; text++)
        if (*text == '/') return 1;
    return 0;
}

__attribute__((noreturn)) void start(void)
{
    uint32_t head[3];
    char *data, *next, **arguments, **variables;
    int error = NO_ENTRY;

    for (int descriptor = ORDER; descriptor <= SELF; descriptor++) call(FCNTL, descriptor, 2 /* F_SETFD */, 1, 0, 0, 0);
    read_whole((char *)head, sizeof(head));
    if (head[0] < 8 || head[0] > MAX_ORDER || head[1] > MAX_ORDER || head[2] > MAX_ORDER) leave();
    /* the page behind is zero, so that the last string ends */
    data = next = allocate((size_t)head[0] + 1);
    read_whole(data, head[0] - 8);
    arguments = take_strings(&next, data + head[0] - 8, head[1]);
    variables = take_strings(&next, data + head[0] - 8, head[2]);
    if (head[1] && *arguments[0])
        error = has_slash(arguments[0]) ? execute(arguments[0], arguments, variables)
                                        : search(find_path(variables), arguments, variables);
    call(WRITE, ANSWER, (long)&error, sizeof(error), 0, 0, 0);
    leave();
    __builtin_unreachable();
}
