/* Programs at both ends of a named pipe. A client waits up to 20 s for the pipe to be there, as programs of Windows do.
 *
 *     pipes serve MODE NAME [BYTES]   MODE: echo; sink (prints `took COUNT CRC` of each client); source (gives BYTES, then closes)
 *                                     with `bytes-` before it the pipe is one of bytes, with `once-` it serves one client
 *                                     with `in-` or `out-` the pipe has one direction
 *     pipes call NAME TEXT            writes a message, prints `said ANSWER`
 *     pipes send NAME BYTES           writes and closes, prints `gave COUNT CRC`
 *     pipes receive NAME              reads to the end, prints `took COUNT CRC`
 *     pipes both NAME BYTES           writes and reads at the same time, prints `took COUNT CRC`
 *     pipes messages NAME             writes messages of many lengths, prints those of the messages that come back
 *     pipes many NAME COUNT           COUNT clients at once, each with a text of its own, prints `answered COUNT`
 *     pipes hold NAME                 calls, prints `held`, and calls again for each line of its input
 *     pipes look NAME                 prints `there` or `nobody`
 */
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

enum { PIECE = 50000, LARGEST = 2000000, PATIENCE_MS = 20000 };

static int failed(const char *what)
{
    printf("failed %s %lu\n", what, GetLastError());
    fflush(stdout);
    return 1;
}

static DWORD crc_step(DWORD crc, const BYTE *bytes, DWORD count)
{
    static DWORD table[256];

    if (!table[1])
        for (DWORD index = 0; index < 256; index++) {
            DWORD value = index;
            for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ value >> 1 : value >> 1;
            table[index] = value;
        }
    crc = ~crc;
    while (count--) crc = table[(crc ^ *bytes++) & 255] ^ crc >> 8;
    return ~crc;
}

static void fill(BYTE *bytes, DWORD start, DWORD count)
{
    for (DWORD index = start; count--; index++) *bytes++ = (BYTE)(index * 7 + (index >> 8) * 13);
}

/* A whole operation on an overlapped handle. */
static BOOL finish(HANDLE pipe, BOOL done, OVERLAPPED *overlapped, DWORD *count)
{
    if (!done && GetLastError() != ERROR_IO_PENDING && GetLastError() != ERROR_MORE_DATA) return FALSE;
    return GetOverlappedResult(pipe, overlapped, count, TRUE);
}

static BOOL put(HANDLE pipe, const void *bytes, DWORD size)
{
    OVERLAPPED overlapped = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    DWORD count;
    BOOL done = finish(pipe, WriteFile(pipe, bytes, size, NULL, &overlapped), &overlapped, &count);

    CloseHandle(overlapped.hEvent);
    return done && count == size;
}

/* FALSE at the end; with ERROR_MORE_DATA when the message goes on. */
static BOOL get(HANDLE pipe, void *bytes, DWORD size, DWORD *count)
{
    OVERLAPPED overlapped = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    BOOL done = finish(pipe, ReadFile(pipe, bytes, size, NULL, &overlapped), &overlapped, count);
    DWORD error = GetLastError();

    CloseHandle(overlapped.hEvent);
    SetLastError(error);
    return done;
}

static HANDLE open_pipe(const WCHAR *name, DWORD access)
{
    ULONGLONG end = GetTickCount64() + PATIENCE_MS;

    for (;;) {
        HANDLE pipe = CreateFileW(name, access, 0, NULL, OPEN_EXISTING, FILE_FLAG_OVERLAPPED, NULL);

        if (pipe != INVALID_HANDLE_VALUE || GetTickCount64() > end) return pipe;
        if (GetLastError() == ERROR_PIPE_BUSY) WaitNamedPipeW(name, PATIENCE_MS);
        else if (GetLastError() == ERROR_FILE_NOT_FOUND) Sleep(20);
        else return pipe;
    }
}

struct serving {
    HANDLE pipe;
    const WCHAR *mode;
    DWORD bytes;
};

static BOOL give(HANDLE pipe, DWORD bytes, DWORD *crc)
{
    BYTE *piece = malloc(PIECE);
    DWORD done = 0, size;
    BOOL good = TRUE;

    for (; good && done < bytes; done += size) {
        size = bytes - done < PIECE ? bytes - done : PIECE;
        fill(piece, done, size);
        *crc = crc_step(*crc, piece, size);
        good = put(pipe, piece, size);
    }
    free(piece);
    return good;
}

static DWORD take(HANDLE pipe, DWORD limit, DWORD *crc)
{
    BYTE *piece = malloc(PIECE);
    DWORD total = 0, count;

    while (total < limit) {
        if (!get(pipe, piece, PIECE, &count) && GetLastError() != ERROR_MORE_DATA) break;
        *crc = crc_step(*crc, piece, count);
        total += count;
    }
    free(piece);
    return total;
}

static DWORD WINAPI serve_client(void *argument)
{
    struct serving serving = *(struct serving *)argument;
    DWORD crc = 0, count, length = 0;

    free(argument);
    if (!wcscmp(serving.mode, L"source")) give(serving.pipe, serving.bytes, &crc);
    else if (!wcscmp(serving.mode, L"sink")) {
        count = take(serving.pipe, 0xffffffff, &crc);
        printf("took %lu %08lx\n", count, crc);
        fflush(stdout);
    } else {
        BYTE *message = malloc(LARGEST);
        for (;;) {
            if (get(serving.pipe, message + length, LARGEST - length, &count)) {
                if (!put(serving.pipe, message, length + count)) break;
                length = 0;
            } else if (GetLastError() == ERROR_MORE_DATA) length += count;
            else break;
        }
        free(message);
    }
    CloseHandle(serving.pipe);
    return 0;
}

static BOOL has(const WCHAR **mode, const WCHAR *prefix)
{
    if (wcsncmp(*mode, prefix, wcslen(prefix))) return FALSE;
    *mode += wcslen(prefix);
    return TRUE;
}

static int serve(const WCHAR *mode, const WCHAR *name, DWORD bytes)
{
    DWORD type = PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE, first = FILE_FLAG_FIRST_PIPE_INSTANCE, access = PIPE_ACCESS_DUPLEX;
    BOOL once = has(&mode, L"once-");

    if (has(&mode, L"bytes-")) type = PIPE_TYPE_BYTE;
    if (has(&mode, L"in-")) access = PIPE_ACCESS_INBOUND;
    else if (has(&mode, L"out-")) access = PIPE_ACCESS_OUTBOUND;
    do {
        struct serving *serving = malloc(sizeof(*serving));
        OVERLAPPED overlapped = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
        DWORD unused;

        *serving = (struct serving){CreateNamedPipeW(name, access | FILE_FLAG_OVERLAPPED | first, type,
                                                     PIPE_UNLIMITED_INSTANCES, 4096, 4096, 0, NULL), mode, bytes};
        if (serving->pipe == INVALID_HANDLE_VALUE) return failed("create");
        if (first) {
            printf("ready\n");
            fflush(stdout);
        }
        first = 0;
        if (!ConnectNamedPipe(serving->pipe, &overlapped) && GetLastError() == ERROR_IO_PENDING)
            GetOverlappedResult(serving->pipe, &overlapped, &unused, TRUE);
        CloseHandle(overlapped.hEvent);
        if (once) serve_client(serving);
        else CloseHandle(CreateThread(NULL, 0, serve_client, serving, 0, NULL));
    } while (!once);
    return 0;
}

static BOOL call(HANDLE pipe, const char *text, char *answer, DWORD size)
{
    DWORD count;

    if (!put(pipe, text, (DWORD)strlen(text)) || !get(pipe, answer, size - 1, &count)) return FALSE;
    answer[count] = 0;
    return TRUE;
}

static int call_once(const WCHAR *name, const WCHAR *wide)
{
    HANDLE pipe = open_pipe(name, GENERIC_READ | GENERIC_WRITE);
    char text[256], answer[65536];

    if (pipe == INVALID_HANDLE_VALUE) return failed("open");
    snprintf(text, sizeof(text), "%ls", wide);
    if (!call(pipe, text, answer, sizeof(answer))) return failed("call");
    printf("said %s\n", answer);
    return 0;
}

static int transfer(const WCHAR *verb, const WCHAR *name, DWORD bytes)
{
    BOOL sends = !wcscmp(verb, L"send");
    HANDLE pipe = open_pipe(name, sends ? GENERIC_WRITE : GENERIC_READ);
    DWORD crc = 0, count = bytes;

    if (pipe == INVALID_HANDLE_VALUE) return failed("open");
    if (sends && !give(pipe, bytes, &crc)) return failed("write");
    if (!sends) count = take(pipe, 0xffffffff, &crc);
    CloseHandle(pipe);
    printf("%s %lu %08lx\n", sends ? "gave" : "took", count, crc);
    return 0;
}

struct giving {
    HANDLE pipe;
    DWORD bytes;
};

static DWORD WINAPI give_beside(void *argument)
{
    struct giving *giving = argument;
    DWORD crc = 0;

    return !give(giving->pipe, giving->bytes, &crc);
}

static int both(const WCHAR *name, DWORD bytes)
{
    struct giving giving = {open_pipe(name, GENERIC_READ | GENERIC_WRITE), bytes};
    HANDLE thread;
    DWORD crc = 0, count;

    if (giving.pipe == INVALID_HANDLE_VALUE) return failed("open");
    thread = CreateThread(NULL, 0, give_beside, &giving, 0, NULL);
    count = take(giving.pipe, bytes, &crc);
    WaitForSingleObject(thread, INFINITE);
    printf("took %lu %08lx\n", count, crc);
    return 0;
}

static int messages(const WCHAR *name)
{
    static const DWORD LENGTHS[] = {1, 1000, 4096, 0, 65536, 65537, 1048576, 7, 1200000};
    HANDLE pipe = open_pipe(name, GENERIC_READ | GENERIC_WRITE);
    DWORD mode = PIPE_READMODE_MESSAGE, count, part, length = 0;
    BYTE *sent = malloc(LARGEST), *came = malloc(LARGEST);

    if (pipe == INVALID_HANDLE_VALUE) return failed("open");
    if (!SetNamedPipeHandleState(pipe, &mode, NULL, NULL)) return failed("mode");
    printf("lengths");
    for (int index = 0; index < (int)(sizeof(LENGTHS) / sizeof(*LENGTHS)); index++) {
        fill(sent, index, LENGTHS[index]);
        if (!put(pipe, sent, LENGTHS[index])) return failed("write");
        for (count = 0; count < LENGTHS[index] || !LENGTHS[index]; count += part) {
            BOOL whole = get(pipe, came + count, LARGEST - count, &part);

            if (!whole && GetLastError() != ERROR_MORE_DATA) return failed("read");
            length += part;
            if (whole) {
                printf(" %lu", length);
                length = 0;
            }
            if (!LENGTHS[index]) break;
        }
        if (memcmp(sent, came, LENGTHS[index])) return failed("compare");
    }
    printf("\n");
    return 0;
}

struct one {
    const WCHAR *name;
    int number;
    BOOL answered;
};

static DWORD WINAPI call_beside(void *argument)
{
    struct one *one = argument;
    HANDLE pipe = open_pipe(one->name, GENERIC_READ | GENERIC_WRITE);
    char text[32], answer[64];

    snprintf(text, sizeof(text), "client %d", one->number);
    if (pipe == INVALID_HANDLE_VALUE) return failed("open");
    for (int times = 0; times < 3; times++) {
        one->answered = call(pipe, text, answer, sizeof(answer)) && !strcmp(text, answer);
        if (!one->answered) return failed("call");
    }
    CloseHandle(pipe);
    return 0;
}

static int many(const WCHAR *name, int count)
{
    struct one *ones = calloc(count, sizeof(*ones));
    HANDLE *threads = calloc(count, sizeof(*threads));
    int answered = 0;

    for (int number = 0; number < count; number++) {
        ones[number] = (struct one){name, number, FALSE};
        threads[number] = CreateThread(NULL, 0, call_beside, &ones[number], 0, NULL);
    }
    for (int number = 0; number < count; number++) {
        WaitForSingleObject(threads[number], INFINITE);
        answered += ones[number].answered;
    }
    printf("answered %d\n", answered);
    return 0;
}

static int hold(const WCHAR *name)
{
    HANDLE pipe = open_pipe(name, GENERIC_READ | GENERIC_WRITE);
    char line[256], answer[256];

    if (pipe == INVALID_HANDLE_VALUE || !call(pipe, "first", answer, sizeof(answer))) return failed("call");
    printf("held\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!call(pipe, line, answer, sizeof(answer))) return failed("call");
        printf("said %s\n", answer);
        fflush(stdout);
    }
    return 0;
}

static int look(const WCHAR *name)
{
    BOOL there = WaitNamedPipeW(name, 1) || GetLastError() != ERROR_FILE_NOT_FOUND;

    printf(there ? "there\n" : "nobody\n");
    return 0;
}

int wmain(int count, WCHAR **words)
{
    const WCHAR *verb = count > 2 ? words[1] : L"";
    const WCHAR *third = count > 3 ? words[3] : L"0";

    if (!wcscmp(verb, L"serve") && count > 3) return serve(words[2], third, count > 4 ? wcstoul(words[4], NULL, 10) : 0);
    if (!wcscmp(verb, L"call")) return call_once(words[2], third);
    if (!wcscmp(verb, L"send") || !wcscmp(verb, L"receive")) return transfer(verb, words[2], wcstoul(third, NULL, 10));
    if (!wcscmp(verb, L"both")) return both(words[2], wcstoul(third, NULL, 10));
    if (!wcscmp(verb, L"messages")) return messages(words[2]);
    if (!wcscmp(verb, L"many")) return many(words[2], wcstol(third, NULL, 10));
    if (!wcscmp(verb, L"hold")) return hold(words[2]);
    if (!wcscmp(verb, L"look")) return look(words[2]);
    return failed("usage");
}
