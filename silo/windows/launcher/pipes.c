/* A named pipe that is mapped to one of the host's: docs/launcher-protocol.md, "Mapped pipes".
 *
 * While somebody outside serves the pipe, the launcher does so inside for the silo's programs. Else it looks whether one of them
 * serves it, a few times a second (Wine tells nobody of a new pipe), and tells the host.
 */
#include "pipes.h"

enum { WATCH_MS = 200, MAX_NAME_CHARACTERS = 256, STACK_BYTES = 65536 };

NTSTATUS NTAPI NtCreateNamedPipeFile(HANDLE *pipe, ULONG access, OBJECT_ATTRIBUTES *attributes, IO_STATUS_BLOCK *status,
                                     ULONG sharing, ULONG disposition, ULONG options, ULONG message_type,
                                     ULONG message_mode, ULONG nonblocking, ULONG most_instances, ULONG input_bytes,
                                     ULONG output_bytes, LARGE_INTEGER *timeout);

NTSTATUS NTAPI NtOpenEvent(HANDLE *event, ACCESS_MASK access, const OBJECT_ATTRIBUTES *attributes);

/* An instance of the pipe that waits for a client; without one, its event is never set. */
struct instance {
    HANDLE pipe;
    BOOL connected; /* a client was there before it could be waited for */
    OVERLAPPED overlapped;
};

struct watch {
    struct mapping *mapping;
    BOOL offered, served;
};

struct listening {
    struct mapping *mapping;
    uint32_t next_id;
    struct instance instances[MAX_PIPE_CONNECTIONS];
};

/* All there are, also those whose host has gone while programs are still connected. */
static struct mapping *mappings;
static SRWLOCK mappings_lock = SRWLOCK_INIT;

void release_mapping(struct mapping *mapping)
{
    if (InterlockedDecrement(&mapping->references)) return;
    AcquireSRWLockExclusive(&mappings_lock);
    for (struct mapping **place = &mappings; *place; place = &(*place)->next)
        if (*place == mapping) {
            *place = mapping->next;
            break;
        }
    ReleaseSRWLockExclusive(&mappings_lock);
    CloseHandle(mapping->stop);
    CloseHandle(mapping->room);
    release(mapping->name);
    release(mapping);
}

static BOOL is_same(const struct mapping *mapping, const WCHAR *name)
{
    size_t length = wcslen(name);

    return length == wcslen(mapping->name) && same_text(name, mapping->name, length);
}

/* Is there a pipe of this name because the launcher made it? Then nobody can see whether a program would. */
static BOOL is_ours(const WCHAR *name)
{
    BOOL found = FALSE;

    AcquireSRWLockExclusive(&mappings_lock);
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        if (mapping->accepted && is_same(mapping, name)) found = TRUE;
    ReleaseSRWLockExclusive(&mappings_lock);
    return found;
}

void announce_room(const struct mapping *ended)
{
    AcquireSRWLockExclusive(&mappings_lock);
    for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
        if (is_same(mapping, ended->name)) SetEvent(mapping->room);
    ReleaseSRWLockExclusive(&mappings_lock);
}

BOOL tell_host(struct mapping *mapping, uint8_t type, const void *bytes, uint32_t size)
{
    uint8_t packet[8] = {type};
    BOOL told;

    memcpy(packet + 1, bytes, size);
    AcquireSRWLockExclusive(&mapping->lock);
    told = mapping->socket >= 0 && linux_send(mapping->socket, packet, 1 + size) >= 0;
    ReleaseSRWLockExclusive(&mapping->lock);
    return told;
}

/* Wine's CreateNamedPipe takes any pipe of the name for its own, so this is said in NT's words. */
static HANDLE create_instance(const WCHAR *name, BOOL first)
{
    UNICODE_STRING path;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK status;
    LARGE_INTEGER timeout = {.QuadPart = -500000};
    HANDLE pipe = NULL;

    if (!RtlDosPathNameToNtPathName_U(name, &path, NULL, NULL)) return NULL;
    InitializeObjectAttributes(&attributes, &path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    /* Clients may ask for messages or for bytes: of a pipe of messages both can be had. */
    if (NtCreateNamedPipeFile(&pipe, GENERIC_READ | GENERIC_WRITE | SYNCHRONIZE, &attributes, &status,
                              FILE_SHARE_READ | FILE_SHARE_WRITE, first ? FILE_CREATE : FILE_OPEN, 0, TRUE, TRUE, FALSE,
                              MAX_PIPE_CONNECTIONS, PIPE_BUFFER_BYTES, PIPE_BUFFER_BYTES, &timeout))
        pipe = NULL;
    RtlFreeUnicodeString(&path);
    return pipe;
}

static BOOL open_instance(struct listening *listening, struct instance *instance, BOOL first)
{
    ResetEvent(instance->overlapped.hEvent);
    if (!(instance->pipe = create_instance(listening->mapping->name, first))) return FALSE;
    /* ERROR_PIPE_CONNECTED, or ERROR_NO_DATA where it has gone already, perhaps after it wrote something. */
    instance->connected = !ConnectNamedPipe(instance->pipe, &instance->overlapped) && GetLastError() != ERROR_IO_PENDING;
    if (instance->connected) SetEvent(instance->overlapped.hEvent);
    return TRUE;
}

/* All that there may be wait from the beginning: then clients never find the pipe busy because many come at once, and no program
 * of the silo can add an instance of its own to a pipe that is served outside. */
static void open_missing(struct listening *listening)
{
    LONG count = listening->mapping->streams;

    for (int index = 0; index < MAX_PIPE_CONNECTIONS; index++)
        if (listening->instances[index].pipe) count++;
    for (int index = 0; index < MAX_PIPE_CONNECTIONS && count < MAX_PIPE_CONNECTIONS; index++)
        if (!listening->instances[index].pipe) {
            if (!open_instance(listening, &listening->instances[index], FALSE)) break;
            count++;
        }
}

static void accept_client(struct listening *listening, struct instance *instance)
{
    struct mapping *mapping = listening->mapping;
    HANDLE pipe = instance->pipe;
    struct pipe_stream *stream;
    uint32_t id = ++listening->next_id & 0x7fffffff;
    DWORD unused;

    instance->pipe = NULL;
    ResetEvent(instance->overlapped.hEvent);
    if (!instance->connected && !GetOverlappedResult(pipe, &instance->overlapped, &unused, FALSE)) {
        CloseHandle(pipe);
        return;
    }
    if (!(stream = new_pipe_stream(mapping, id, pipe))) return;
    stream->accepted = TRUE;
    InterlockedIncrement(&mapping->accepted);
    AcquireSRWLockExclusive(&mapping->lock);
    stream->next = mapping->waiting;
    mapping->waiting = stream;
    ReleaseSRWLockExclusive(&mapping->lock);
    /* Where the host does not hear of it, it has gone, and so will all that wait. */
    tell_host(mapping, PIPE_CLIENT, &id, sizeof(id));
}

static void close_listening(struct listening *listening)
{
    for (int index = 0; index < MAX_PIPE_CONNECTIONS; index++) {
        struct instance *instance = &listening->instances[index];
        DWORD unused;

        if (instance->pipe) {
            if (!instance->connected && CancelIoEx(instance->pipe, &instance->overlapped))
                GetOverlappedResult(instance->pipe, &instance->overlapped, &unused, TRUE);
            CloseHandle(instance->pipe);
        }
        CloseHandle(instance->overlapped.hEvent);
    }
    release(listening);
}

static DWORD WINAPI await_clients(void *argument)
{
    struct listening *listening = argument;
    HANDLE handles[MAX_PIPE_CONNECTIONS + 2] = {listening->mapping->stop, listening->mapping->room};
    DWORD which;

    for (int index = 0; index < MAX_PIPE_CONNECTIONS; index++) handles[2 + index] = listening->instances[index].overlapped.hEvent;
    for (;;) {
        open_missing(listening);
        which = WaitForMultipleObjects(ARRAYSIZE(handles), handles, FALSE, INFINITE) - WAIT_OBJECT_0;
        if (!which || which >= ARRAYSIZE(handles)) break;
        if (which > 1) accept_client(listening, &listening->instances[which - 2]);
    }
    close_listening(listening);
    return 0;
}

/* FALSE where a program of the silo serves the pipe itself. */
static BOOL start_listening(struct mapping *mapping)
{
    struct listening *listening = allocate(sizeof(*listening));

    memset(listening, 0, sizeof(*listening));
    listening->mapping = mapping;
    for (int index = 0; index < MAX_PIPE_CONNECTIONS; index++)
        listening->instances[index].overlapped.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    ResetEvent(mapping->stop);
    if (open_instance(listening, &listening->instances[0], !is_ours(mapping->name)))
        mapping->listener = CreateThread(NULL, STACK_BYTES, await_clients, listening, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (!mapping->listener) close_listening(listening);
    return mapping->listener != NULL;
}

static void stop_listening(struct mapping *mapping)
{
    if (!mapping->listener) return;
    SetEvent(mapping->stop);
    WaitForSingleObject(mapping->listener, INFINITE);
    CloseHandle(mapping->listener);
    mapping->listener = NULL;
}

static struct pipe_stream *take_waiting(struct mapping *mapping, uint32_t id, BOOL any)
{
    struct pipe_stream *found = NULL;

    AcquireSRWLockExclusive(&mapping->lock);
    for (struct pipe_stream **place = &mapping->waiting; *place; place = &(*place)->next)
        if (any || (*place)->id == id) {
            found = *place;
            *place = found->next;
            break;
        }
    ReleaseSRWLockExclusive(&mapping->lock);
    return found;
}

/* A pipe is no event: to be told so is the cheapest way to learn that there is one, and connects to nothing. */
static BOOL exists(const WCHAR *name)
{
    static const NTSTATUS OTHER_TYPE = (NTSTATUS)0xc0000024;
    UNICODE_STRING path;
    OBJECT_ATTRIBUTES attributes;
    HANDLE event;
    NTSTATUS status;

    if (!RtlDosPathNameToNtPathName_U(name, &path, NULL, NULL)) return FALSE;
    InitializeObjectAttributes(&attributes, &path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    status = NtOpenEvent(&event, SYNCHRONIZE, &attributes);
    RtlFreeUnicodeString(&path);
    return status == OTHER_TYPE;
}

static BOOL is_served(const WCHAR *name)
{
    return !is_ours(name) && exists(name);
}

/* What the host wants and what the silo's programs do, brought together. */
static void look(struct watch *watch)
{
    uint8_t served;

    if (watch->offered && !watch->mapping->listener && start_listening(watch->mapping)) served = FALSE;
    else served = !watch->mapping->listener && is_served(watch->mapping->name);
    if (served == watch->served) return;
    watch->served = served;
    tell_host(watch->mapping, PIPE_SERVED, &served, sizeof(served));
}

static BOOL obey(struct watch *watch, struct message *order, const int *descriptors, int count)
{
    struct mapping *mapping = watch->mapping;
    uint8_t type = take_u8(order);
    struct pipe_stream *stream;
    uint32_t number = type == PIPE_OFFER ? take_u8(order) : take_u32(order);

    if (order->broken || order->offset != order->size) return FALSE;
    if (type == PIPE_OPEN && count == 2) {
        open_pipe_stream(mapping, number, descriptors[0], descriptors[1]);
        return TRUE;
    }
    if (type == PIPE_ATTACH && count == 2) {
        if ((stream = take_waiting(mapping, number, FALSE))) start_pipe_stream(stream, descriptors[0], descriptors[1]);
        return stream != NULL;
    }
    if (type == PIPE_REFUSE && !count) {
        if ((stream = take_waiting(mapping, number, FALSE))) release_pipe_stream(stream);
        return TRUE;
    }
    if (type != PIPE_OFFER || count || number > 1) return FALSE;
    if (!(watch->offered = (BOOL)number)) stop_listening(mapping);
    look(watch);
    return TRUE;
}

/* One packet from the host. FALSE when it has gone, or says what is none of the protocol. */
static BOOL hear(struct watch *watch)
{
    uint8_t data[16];
    int descriptors[LINUX_MAX_PASSED], count;
    int64_t size = linux_receive(watch->mapping->socket, data, sizeof(data), descriptors, &count);
    struct message order = {data, 0, 0, FALSE};
    BOOL obeyed = FALSE;

    if (size > 0 && size <= (int64_t)sizeof(data)) {
        order.size = (uint32_t)size;
        obeyed = obey(watch, &order, descriptors, count);
    }
    if (!obeyed)
        while (count) linux_close(descriptors[--count]);
    return obeyed;
}

static BOOL is_pipe_name(const WCHAR *name)
{
    static const WCHAR PREFIX[] = L"\\\\.\\pipe\\";
    size_t length = name ? wcslen(name) : 0;

    return length >= ARRAYSIZE(PREFIX) && length <= MAX_NAME_CHARACTERS && same_text(name, PREFIX, ARRAYSIZE(PREFIX) - 1);
}

/* Serves one mapping until the host closes the connection. Programs that are connected stay so. */
static void attend(struct watch *watch, int socket)
{
    struct mapping *mapping = watch->mapping;
    struct pipe_stream *stream;

    look(watch);
    answer_ok(socket);
    mapping->socket = socket; /* from here on the host hears more than the answer */
    if (watch->served) tell_host(mapping, PIPE_SERVED, &(uint8_t){TRUE}, 1);
    for (;;) {
        if (linux_is_readable(socket, mapping->listener ? -1 : WATCH_MS)) {
            if (!hear(watch)) break;
        } else look(watch);
    }
    stop_listening(mapping);
    AcquireSRWLockExclusive(&mapping->lock);
    mapping->socket = -1;
    ReleaseSRWLockExclusive(&mapping->lock);
    while ((stream = take_waiting(mapping, 0, TRUE))) release_pipe_stream(stream);
}

void serve_pipe(int socket, struct message *request)
{
    uint8_t offered = take_u8(request);
    WCHAR *name = take_text(request);
    struct mapping *mapping;
    struct watch watch;

    if (request->broken || request->offset != request->size || offered > 1 || !is_pipe_name(name)) {
        release(name);
        answer_failed(socket, ERROR_INVALID_PARAMETER, L"PIPE");
        return;
    }
    mapping = allocate(sizeof(*mapping));
    memset(mapping, 0, sizeof(*mapping));
    mapping->references = 1;
    mapping->socket = -1;
    mapping->name = name;
    mapping->stop = CreateEventW(NULL, TRUE, FALSE, NULL);
    mapping->room = CreateEventW(NULL, FALSE, FALSE, NULL);
    AcquireSRWLockExclusive(&mappings_lock);
    mapping->next = mappings;
    mappings = mapping;
    ReleaseSRWLockExclusive(&mappings_lock);
    watch = (struct watch){mapping, offered, FALSE};
    attend(&watch, socket);
    release_mapping(mapping);
}
