/* Bridges between Unix descriptors and a program's standard streams.
 *
 * Programs built on libuv fail on Unix pipes, so a pipe or socket gets a thread that copies between it and an NT pipe; each
 * side waits for the other, so pressure passes through. A file or device needs no bridge and is handed over as it is.
 */
#include "launcher.h"

enum { PIPE_BYTES = 65536, STACK_BYTES = 65536 };

NTSTATUS CDECL wine_server_fd_to_handle(int descriptor, unsigned int access, unsigned int attributes, HANDLE *handle);

static DWORD hand_over(int descriptor, DWORD access, HANDLE *child)
{
    NTSTATUS status = wine_server_fd_to_handle(descriptor, access | SYNCHRONIZE, 2 /* OBJ_INHERIT */, child);

    linux_close(descriptor);
    return status ? ERROR_INVALID_HANDLE : 0;
}

DWORD open_input(struct stream *stream, int descriptor, HANDLE *child)
{
    SECURITY_ATTRIBUTES inherited = {sizeof(inherited), NULL, TRUE};

    if (linux_kind(descriptor) != LINUX_STREAM) return hand_over(descriptor, GENERIC_READ, child);
    stream->descriptor = descriptor;
    if ((stream->wake = linux_event()) < 0) return ERROR_TOO_MANY_OPEN_FILES;
    if (!CreatePipe(child, &stream->pipe, &inherited, PIPE_BYTES)) return GetLastError();
    SetHandleInformation(stream->pipe, HANDLE_FLAG_INHERIT, 0);
    return 0;
}

static void name_pipe(WCHAR *name)
{
    static LONG serial;
    static const WCHAR START[] = L"\\\\.\\pipe\\Win32.Pipes.silo.";
    uint32_t number = (uint32_t)InterlockedIncrement(&serial);

    memcpy(name, START, sizeof(START));
    for (name += ARRAYSIZE(START) - 1; number; number >>= 4) *name++ = L"0123456789abcdef"[number & 15];
    *name = 0;
}

DWORD open_output(struct stream *stream, int descriptor, HANDLE *child)
{
    SECURITY_ATTRIBUTES inherited = {sizeof(inherited), NULL, TRUE};
    WCHAR name[64];

    if (linux_kind(descriptor) != LINUX_STREAM) return hand_over(descriptor, GENERIC_WRITE, child);
    stream->descriptor = descriptor;
    name_pipe(name);
    stream->pipe = CreateNamedPipeW(name, PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
                                    PIPE_TYPE_BYTE | PIPE_WAIT, 1, PIPE_BYTES, PIPE_BYTES, 0, NULL);
    if (stream->pipe == INVALID_HANDLE_VALUE) {
        stream->pipe = NULL;
        return GetLastError();
    }
    *child = CreateFileW(name, GENERIC_WRITE | FILE_READ_ATTRIBUTES, 0, &inherited, OPEN_EXISTING, 0, NULL);
    if (*child == INVALID_HANDLE_VALUE) {
        *child = NULL;
        return GetLastError();
    }
    stream->drain = CreateEventW(NULL, FALSE, FALSE, NULL);
    stream->drained = CreateEventW(NULL, TRUE, FALSE, NULL);
    return 0;
}

/* The thread owns pipe and descriptor, and holds the program's record. */
static void close_stream(struct stream *stream, uint8_t *buffer)
{
    release(buffer);
    CloseHandle(stream->pipe);
    linux_close(stream->descriptor);
    release_program(stream->owner);
}

static DWORD WINAPI copy_input(void *argument)
{
    struct stream *stream = argument;
    uint8_t *buffer = allocate(PIPE_BYTES);
    int64_t count;
    DWORD written;

    while ((count = linux_read_or_wake(stream->descriptor, stream->wake, buffer, PIPE_BYTES)) > 0)
        if (!WriteFile(stream->pipe, buffer, (DWORD)count, &written, NULL)) break;
    close_stream(stream, buffer);
    return 0;
}

/* One read: its bytes, 0 for none, -1 at the end of the pipe. */
static int read_output(struct stream *stream, uint8_t *buffer, OVERLAPPED *overlapped)
{
    HANDLE handles[2] = {overlapped->hEvent, stream->drain};
    DWORD count = 0;
    BOOL asked = FALSE;

    if (!ReadFile(stream->pipe, buffer, PIPE_BYTES, NULL, overlapped)) {
        if (GetLastError() != ERROR_IO_PENDING) return -1;
        asked = WaitForMultipleObjects(2, handles, FALSE, INFINITE) == WAIT_OBJECT_0 + 1;
        /* A cancelled read says for certain whether bytes arrived before. */
        if (asked) CancelIoEx(stream->pipe, overlapped);
    }
    if (GetOverlappedResult(stream->pipe, overlapped, &count, TRUE)) {
        if (asked) SetEvent(stream->drain);
        return (int)count;
    }
    if (!asked || GetLastError() != ERROR_OPERATION_ABORTED) return -1;
    SetEvent(stream->drained);
    return 0;
}

static DWORD WINAPI copy_output(void *argument)
{
    struct stream *stream = argument;
    uint8_t *buffer = allocate(PIPE_BYTES);
    OVERLAPPED overlapped = {0};
    int count, error = 0;

    overlapped.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    while (!error && (count = read_output(stream, buffer, &overlapped)) >= 0)
        if (count) error = linux_write(stream->descriptor, buffer, (size_t)count);
    CloseHandle(overlapped.hEvent);
    SetEvent(stream->drained);
    close_stream(stream, buffer);
    return 0;
}

void start_stream(struct stream *stream, BOOL output)
{
    if (!stream->pipe) return;
    InterlockedIncrement(&stream->owner->references);
    stream->thread = CreateThread(NULL, STACK_BYTES, output ? copy_output : copy_input, stream,
                                  STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (!stream->thread) release_program(stream->owner);
}

void stop_input(struct stream *stream)
{
    uint64_t once = 1;

    if (!stream->thread) return;
    linux_write(stream->wake, &once, sizeof(once));
    CancelSynchronousIo(stream->thread);
}

void drain_output(struct stream *stream)
{
    if (!stream->thread) return;
    SetEvent(stream->drain);
    WaitForSingleObject(stream->drained, INFINITE);
}

/* What the thread does not own; all of it if there never was one. */
void close_stream_record(struct stream *stream)
{
    if (!stream->owner) return;
    if (stream->pipe && !stream->thread) {
        CloseHandle(stream->pipe);
        linux_close(stream->descriptor);
    }
    if (stream->thread) CloseHandle(stream->thread);
    if (stream->drain) CloseHandle(stream->drain);
    if (stream->drained) CloseHandle(stream->drained);
    linux_close(stream->wake);
}
