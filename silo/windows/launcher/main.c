/* The resident launcher: accepts requests of the host and serves each one on a thread. See docs/launcher-protocol.md. */
#include "pipes.h"

enum { SPARE_WORKERS = 2, WORKER_STACK_BYTES = 262144, CANNOT_WORK = 125 };

static LONG idle_workers;

void *allocate(size_t size)
{
    void *memory = HeapAlloc(GetProcessHeap(), 0, size);

    if (!memory) linux_exit(CANNOT_WORK);
    return memory;
}

void release(void *memory)
{
    if (memory) HeapFree(GetProcessHeap(), 0, memory);
}

WCHAR *copy_text(const WCHAR *text)
{
    return join_text(text, L"", L"");
}

WCHAR *join_text(const WCHAR *first, const WCHAR *second, const WCHAR *third)
{
    size_t sizes[3] = {wcslen(first), wcslen(second), wcslen(third)};
    WCHAR *result = allocate((sizes[0] + sizes[1] + sizes[2] + 1) * sizeof(WCHAR));

    memcpy(result, first, sizes[0] * sizeof(WCHAR));
    memcpy(result + sizes[0], second, sizes[1] * sizeof(WCHAR));
    memcpy(result + sizes[0] + sizes[1], third, (sizes[2] + 1) * sizeof(WCHAR));
    return result;
}

BOOL same_text(const WCHAR *one, const WCHAR *other, size_t length)
{
    return CompareStringOrdinal(one, (int)length, other, (int)length, TRUE) == CSTR_EQUAL;
}

static void serve_signal(int socket, struct message *request)
{
    DWORD pid = take_u32(request), event = take_u32(request), error = ERROR_INVALID_PARAMETER;
    struct program *program = NULL;

    if (!request->broken) {
        program = find_program(pid);
        if (program) InterlockedIncrement(&program->signals);
        error = program ? send_event(program, event) : ERROR_NOT_FOUND;
    }
    if (error) answer_failed(socket, error, L"SIGNAL");
    else answer_ok(socket);
    if (program) InterlockedDecrement(&program->signals);
    release_program(program);
}

static void serve_resize(int socket, struct message *request)
{
    DWORD pid = take_u32(request), error = ERROR_INVALID_PARAMETER;
    uint16_t columns = take_u16(request), rows = take_u16(request);
    struct program *program;

    if (!request->broken && columns && rows && columns < 0x7fff && rows < 0x7fff) {
        program = find_program(pid);
        error = !program ? ERROR_NOT_FOUND : ERROR_INVALID_FUNCTION;
        if (program && program->flags & RUN_TTY) error = resize_terminal(&program->terminal, columns, rows);
        release_program(program);
    }
    if (error) answer_failed(socket, error, L"RESIZE");
    else answer_ok(socket);
}

static void serve_configure(int socket, struct message *request)
{
    WCHAR *name = take_text(request);
    DWORD error = name && !request->broken ? set_computer_name(name) : ERROR_INVALID_PARAMETER;

    release(name);
    if (error) answer_failed(socket, error, L"CONFIGURE");
    else answer_ok(socket);
}

static void serve_start(int socket, struct message *request)
{
    uint32_t flags = take_u32(request);
    DWORD pid = 0, error = ERROR_INVALID_PARAMETER;

    if (!request->broken && !(flags & ~(uint32_t)RUN_NO_FLUSH)) error = start_parked(flags, &pid);
    if (error) answer_failed(socket, error, L"START");
    else answer_number(socket, STARTED, pid);
}

static void serve_shutdown(int socket, struct message *request)
{
    uint32_t code = take_u32(request);

    if (request->broken) answer_failed(socket, ERROR_INVALID_PARAMETER, L"SHUTDOWN");
    else end_silo(code, TRUE);
}

static void serve_save(int socket)
{
    DWORD error = save_registry();

    if (error) answer_failed(socket, error, L"SAVE");
    else answer_ok(socket);
}

static void serve(int socket, uint8_t *buffer)
{
    struct message request = {buffer, 0, 0, FALSE};
    int descriptors[LINUX_MAX_PASSED], count;
    int64_t size = linux_receive(socket, buffer, MAX_MESSAGE, descriptors, &count);
    uint8_t type = 0;

    if (size > 0 && size <= MAX_MESSAGE) {
        request.size = (uint32_t)size;
        type = take_u8(&request);
    }
    if (type == RUN) {
        run_program(socket, &request, descriptors, count);
        return;
    }
    while (count) linux_close(descriptors[--count]);
    switch (type) {
    case SIGNAL: serve_signal(socket, &request); break;
    case RESIZE: serve_resize(socket, &request); break;
    case LIST: answer_processes(socket); break;
    case CONFIGURE: serve_configure(socket, &request); break;
    case SHUTDOWN: serve_shutdown(socket, &request); break;
    case PING: answer_ok(socket); break;
    case SAVE: serve_save(socket); break;
    case START: serve_start(socket, &request); break;
    case PIPE: serve_pipe(socket, &request); break;
    default:
        if (size) answer_failed(socket, ERROR_INVALID_PARAMETER, L"unknown or too long request");
    }
}

static DWORD WINAPI work(void *is_first);

static void start_worker(void)
{
    HANDLE thread = CreateThread(NULL, WORKER_STACK_BYTES, work, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);

    if (!thread) return;
    InterlockedIncrement(&idle_workers);
    CloseHandle(thread);
}

/* All workers wait in accept; one that finds itself the last starts another. The first never ends: a process whose first thread
 * has ended looks like a zombie, and its namespaces cannot be joined. */
static DWORD WINAPI work(void *is_first)
{
    for (;;) {
        int socket = linux_accept(FD_LISTENER);
        uint8_t *buffer;

        if (socket < 0) linux_exit(CANNOT_WORK);
        if (!InterlockedDecrement(&idle_workers)) start_worker();
        buffer = allocate(MAX_MESSAGE);
        serve(socket, buffer);
        release(buffer);
        linux_close(socket);
        if (InterlockedIncrement(&idle_workers) > SPARE_WORKERS && !is_first) {
            InterlockedDecrement(&idle_workers);
            return 0;
        }
    }
}

static BOOL WINAPI ignore_event(DWORD event)
{
    (void)event;
    return TRUE;
}

void start(void)
{
    static const char COMPLAINT[] = "silo launcher: this Wine does not let a Windows program make Linux system calls\n";

    if (!linux_works()) {
        DWORD count;
        WriteFile(GetStdHandle(STD_ERROR_HANDLE), COMPLAINT, sizeof(COMPLAINT) - 1, &count, NULL);
        ExitProcess(CANNOT_WORK);
    }
    for (int descriptor = FD_LISTENER; descriptor <= FD_ERROR; descriptor++) linux_keep_private(descriptor);
    SetConsoleCtrlHandler(ignore_event, TRUE);
    prepare_silo();
    prepare_processors();
    prepare_consoles();
    prepare_environment();
    await_watch();
    start_worker();
    InterlockedIncrement(&idle_workers);
    work(&idle_workers);
}
