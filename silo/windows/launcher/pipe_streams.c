/* Bytes between a program's end of a named pipe and two Unix pipes of the host's.
 *
 * On a Unix pipe a message is a frame: u32 length and bytes. What a program writes at once is one message and stays one, up to
 * PIPE_FRAME_BYTES; so pipes of messages work, and for a pipe of bytes it makes no difference. Each side waits for the other.
 */
#include "pipes.h"

enum { STACK_BYTES = 65536, BUSY_PATIENCE_MS = 30000, HEADER = sizeof(uint32_t) };

struct opening {
    struct pipe_stream *stream;
    int input, output;
};

struct pipe_stream *new_pipe_stream(struct mapping *mapping, uint32_t id, HANDLE pipe)
{
    struct pipe_stream *stream;

    if (InterlockedIncrement(&mapping->streams) > MAX_PIPE_CONNECTIONS) {
        InterlockedDecrement(&mapping->streams);
        if (pipe) CloseHandle(pipe);
        return NULL;
    }
    stream = allocate(sizeof(*stream));
    memset(stream, 0, sizeof(*stream));
    InterlockedIncrement(&mapping->references);
    stream->mapping = mapping;
    stream->references = 1;
    stream->id = id;
    stream->pipe = pipe;
    stream->over = CreateEventW(NULL, TRUE, FALSE, NULL);
    stream->input = stream->output = -1;
    stream->wake = linux_event();
    return stream;
}

void release_pipe_stream(struct pipe_stream *stream)
{
    struct mapping *mapping = stream->mapping;

    if (InterlockedDecrement(&stream->references)) return;
    /* The program gets what was written to it before its end breaks. */
    if (stream->pipe) CloseHandle(stream->pipe);
    if (stream->accepted) InterlockedDecrement(&mapping->accepted);
    if (stream->over) CloseHandle(stream->over);
    linux_close(stream->wake);
    linux_close(stream->input);
    linux_close(stream->output);
    InterlockedDecrement(&mapping->streams); /* before the host hears that there is room */
    tell_host(mapping, PIPE_ENDED, &stream->id, sizeof(stream->id));
    release(stream);
    announce_room(mapping);
    release_mapping(mapping);
}

/* Waits for an operation that may be pending: its bytes, or -1. ERROR_MORE_DATA is left for the caller. */
static int finish(struct pipe_stream *stream, OVERLAPPED *overlapped, BOOL done, BOOL until_over)
{
    HANDLE handles[2] = {overlapped->hEvent, stream->over};
    DWORD count = 0, error = done ? 0 : GetLastError();

    if (error && error != ERROR_IO_PENDING && error != ERROR_MORE_DATA) return -1;
    if (error == ERROR_IO_PENDING && WaitForMultipleObjects(until_over ? 2 : 1, handles, FALSE, INFINITE) != WAIT_OBJECT_0)
        CancelIoEx(stream->pipe, overlapped);
    if (GetOverlappedResult(stream->pipe, overlapped, &count, TRUE)) {
        SetLastError(0);
        return (int)count;
    }
    return GetLastError() == ERROR_MORE_DATA ? (int)count : -1;
}

/* One message, or the next part of one that is too long: its length, or -1. The buffer has room for the header. */
static int read_message(struct pipe_stream *stream, uint8_t **buffer, uint32_t *capacity, OVERLAPPED *overlapped)
{
    uint32_t length = 0;

    for (;;) {
        BOOL done = ReadFile(stream->pipe, *buffer + HEADER + length, *capacity - length, NULL, overlapped);
        int count = finish(stream, overlapped, done, TRUE);
        uint8_t *larger;

        if (count < 0) return -1;
        length += (uint32_t)count;
        if (GetLastError() != ERROR_MORE_DATA || *capacity == PIPE_FRAME_BYTES) return (int)length;
        larger = allocate(HEADER + PIPE_FRAME_BYTES);
        memcpy(larger + HEADER, *buffer + HEADER, length);
        release(*buffer);
        *buffer = larger;
        *capacity = PIPE_FRAME_BYTES;
    }
}

static DWORD WINAPI carry_out(void *argument)
{
    struct pipe_stream *stream = argument;
    uint32_t capacity = PIPE_BUFFER_BYTES;
    uint8_t *buffer = allocate(HEADER + capacity);
    OVERLAPPED overlapped = {0};
    uint64_t once = 1;
    int length, error = 0;

    overlapped.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (stream->one_way) WaitForSingleObject(stream->over, INFINITE);
    while (!error && (length = read_message(stream, &buffer, &capacity, &overlapped)) >= 0) {
        memcpy(buffer, &length, HEADER);
        error = linux_write(stream->output, buffer, HEADER + (size_t)length);
    }
    CloseHandle(overlapped.hEvent);
    release(buffer);
    linux_close(stream->output);
    stream->output = -1;
    linux_write(stream->wake, &once, sizeof(once));
    release_pipe_stream(stream);
    return 0;
}

static BOOL read_whole(struct pipe_stream *stream, void *data, uint32_t size)
{
    for (uint8_t *next = data; size;) {
        int64_t count = linux_read_or_wake(stream->input, stream->wake, next, size);

        if (count <= 0) return FALSE;
        next += count;
        size -= (uint32_t)count;
    }
    return TRUE;
}

static DWORD WINAPI carry_in(void *argument)
{
    struct pipe_stream *stream = argument;
    uint32_t capacity = PIPE_BUFFER_BYTES, length;
    uint8_t *buffer = allocate(capacity);
    OVERLAPPED overlapped = {0};

    overlapped.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    while (read_whole(stream, &length, sizeof(length)) && length <= PIPE_FRAME_BYTES) {
        if (length > capacity) {
            release(buffer);
            buffer = allocate(capacity = PIPE_FRAME_BYTES);
        }
        if (!read_whole(stream, buffer, length)) break;
        if (finish(stream, &overlapped, WriteFile(stream->pipe, buffer, length, NULL, &overlapped), FALSE) < 0) break;
    }
    CloseHandle(overlapped.hEvent);
    release(buffer);
    SetEvent(stream->over);
    release_pipe_stream(stream);
    return 0;
}

static BOOL start_thread(DWORD(WINAPI *routine)(void *), void *argument)
{
    HANDLE thread = CreateThread(NULL, STACK_BYTES, routine, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);

    if (thread) CloseHandle(thread);
    return thread != NULL;
}

void start_pipe_stream(struct pipe_stream *stream, int input, int output)
{
    stream->input = input;
    stream->output = output;
    stream->references = 2;
    if (!start_thread(carry_in, stream)) {
        stream->references = 1;
        release_pipe_stream(stream);
    } else if (!start_thread(carry_out, stream)) {
        uint64_t once = 1;

        linux_write(stream->wake, &once, sizeof(once));
        release_pipe_stream(stream);
    }
}

/* A server may have made its pipe for one direction only. It must not act in the launcher's name. */
static HANDLE open_served(const WCHAR *name, BOOL *one_way)
{
    static const DWORD ACCESS[] = {GENERIC_READ | GENERIC_WRITE, GENERIC_READ | FILE_WRITE_ATTRIBUTES,
                                   GENERIC_WRITE | FILE_READ_ATTRIBUTES};
    DWORD flags = FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION;
    ULONGLONG end = GetTickCount64() + BUSY_PATIENCE_MS;

    for (int index = 0; index < (int)ARRAYSIZE(ACCESS);) {
        HANDLE pipe = CreateFileW(name, ACCESS[index], 0, NULL, OPEN_EXISTING, flags, NULL);
        DWORD error = GetLastError();

        if (pipe != INVALID_HANDLE_VALUE) {
            *one_way = !(ACCESS[index] & GENERIC_READ);
            return pipe;
        }
        if (error == ERROR_ACCESS_DENIED) index++;
        else if (error != ERROR_PIPE_BUSY || GetTickCount64() >= end || !WaitNamedPipeW(name, BUSY_PATIENCE_MS)) break;
    }
    return NULL;
}

static DWORD WINAPI open_and_carry(void *argument)
{
    struct opening opening = *(struct opening *)argument;
    DWORD type = 0, mode = PIPE_READMODE_MESSAGE;

    release(argument);
    if ((opening.stream->pipe = open_served(opening.stream->mapping->name, &opening.stream->one_way))) {
        if (GetNamedPipeInfo(opening.stream->pipe, &type, NULL, NULL, NULL) && type & PIPE_TYPE_MESSAGE)
            SetNamedPipeHandleState(opening.stream->pipe, &mode, NULL, NULL);
        start_pipe_stream(opening.stream, opening.input, opening.output);
    } else {
        linux_close(opening.input);
        linux_close(opening.output);
        release_pipe_stream(opening.stream);
    }
    return 0;
}

void open_pipe_stream(struct mapping *mapping, uint32_t id, int input, int output)
{
    struct pipe_stream *stream = new_pipe_stream(mapping, id, NULL);
    struct opening *opening;

    if (stream) {
        opening = allocate(sizeof(*opening));
        *opening = (struct opening){stream, input, output};
        if (start_thread(open_and_carry, opening)) return;
        release(opening);
        release_pipe_stream(stream);
    } else tell_host(mapping, PIPE_ENDED, &id, sizeof(id));
    linux_close(input);
    linux_close(output);
}
