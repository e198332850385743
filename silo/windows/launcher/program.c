/* A program's life: started as the request says, waited for, its end reported. */
#include "launcher.h"

enum { ANSWER_PATIENCE_MS = 1000 };

struct run_request {
    uint32_t flags;
    uint16_t columns, rows;
    WCHAR *command, *directory, *environment, *path;
};

static struct program *programs, *main_program;
static SRWLOCK lock = SRWLOCK_INIT;

struct program *find_program(DWORD pid)
{
    struct program *found;

    AcquireSRWLockExclusive(&lock);
    for (found = programs; found; found = found->next)
        if (pid ? found->pid == pid : found == main_program) break;
    if (found) InterlockedIncrement(&found->references);
    ReleaseSRWLockExclusive(&lock);
    return found;
}

void release_program(struct program *program)
{
    if (!program || InterlockedDecrement(&program->references)) return;
    close_stream_record(&program->input);
    close_stream_record(&program->output);
    close_stream_record(&program->error);
    close_terminal(&program->terminal);
    if (program->process) CloseHandle(program->process);
    if (program->thread) CloseHandle(program->thread);
    if (program->job) CloseHandle(program->job);
    release(program);
}

static void list_program(struct program *program)
{
    AcquireSRWLockExclusive(&lock);
    program->next = programs;
    programs = program;
    ReleaseSRWLockExclusive(&lock);
}

static void unlist_program(struct program *program)
{
    AcquireSRWLockExclusive(&lock);
    for (struct program **place = &programs; *place; place = &(*place)->next)
        if (*place == program) {
            *place = program->next;
            break;
        }
    ReleaseSRWLockExclusive(&lock);
}

/* What the end of a parked program needs is said when it is started. */
static BOOL flags_are_possible(uint32_t flags)
{
    return flags & RUN_PARK ? flags == (RUN_PARK | RUN_MAIN) : flags < RUN_PARK;
}

static BOOL take_request(struct run_request *run, struct message *message)
{
    run->flags = take_u32(message);
    run->columns = take_u16(message);
    run->rows = take_u16(message);
    run->command = take_text(message);
    run->directory = take_text(message);
    run->environment = take_text(message);
    run->path = take_text(message);
    if (message->broken || message->offset != message->size || !flags_are_possible(run->flags)) return FALSE;
    if (!*run->directory) {
        release(run->directory);
        run->directory = copy_text(L"C:\\");
    }
    return *run->command || *run->path;
}

static void release_request(struct run_request *run)
{
    release(run->command);
    release(run->directory);
    release(run->environment);
    release(run->path);
}

/* The three handles of a program, from its descriptors or for its terminal. Takes over all descriptors. */
static DWORD open_streams(struct program *program, const struct run_request *run, const int *descriptors, HANDLE handles[3])
{
    struct stream *streams[3] = {&program->input, &program->output, &program->error};
    DWORD error = 0;

    if (run->flags & RUN_TTY) {
        error = open_terminal(&program->terminal, descriptors[0], run->columns, run->rows);
        return error ? error : open_terminal_handles(handles);
    }
    for (int index = 0; index < 3; index++) {
        struct stream *stream = streams[index];

        stream->owner = program;
        stream->descriptor = stream->wake = -1;
        if (error) linux_close(descriptors[index]);
        else error = index ? open_output(stream, descriptors[index], &handles[index])
                           : open_input(stream, descriptors[index], &handles[index]);
    }
    return error;
}

static DWORD create_process(struct program *program, const struct run_request *run, const struct target *target,
                            WCHAR *block, HANDLE handles[3])
{
    uint8_t space[512];
    SIZE_T size = sizeof(space);
    struct console *console = run->flags & RUN_TTY ? &program->terminal : common_console();
    DWORD flags = CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT;
    STARTUPINFOEXW startup = {0};
    PROCESS_INFORMATION started;

    if (run->flags & RUN_PARK) flags |= CREATE_SUSPENDED;
    startup.StartupInfo.cb = sizeof(startup);
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = handles[0];
    startup.StartupInfo.hStdOutput = handles[1];
    startup.StartupInfo.hStdError = handles[2];
    startup.lpAttributeList = (LPPROC_THREAD_ATTRIBUTE_LIST)space;
    if (!InitializeProcThreadAttributeList(startup.lpAttributeList, 3, 0, &size)) return GetLastError();
    UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles, 3 * sizeof(HANDLE),
                              NULL, NULL);
    UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_JOB_LIST, &program->job, sizeof(HANDLE),
                              NULL, NULL);
    if (console)
        UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE, console, sizeof(HANDLE),
                                  NULL, NULL);
    if (!CreateProcessW(target->file, target->command, NULL, NULL, TRUE, flags, block, run->directory, &startup.StartupInfo,
                        &started))
        return GetLastError();
    if (run->flags & RUN_PARK) program->thread = started.hThread;
    else CloseHandle(started.hThread);
    program->process = started.hProcess;
    program->pid = started.dwProcessId;
    return 0;
}

static DWORD prepare_target(const struct run_request *run, struct target *target, WCHAR **block)
{
    struct environment environment = {0};
    DWORD error = ensure_directory(run->directory);

    if (!error && !build_environment(&environment, run->environment)) error = ERROR_INVALID_PARAMETER;
    if (!error) error = find_target(target, run->command, run->path, run->directory, &environment);
    if (!error) *block = environment_block(&environment);
    free_environment(&environment);
    return error;
}

/* Takes over the descriptors in every case. */
static DWORD start_program(struct program *program, const struct run_request *run, const int *descriptors, int count)
{
    struct target target = {0};
    HANDLE handles[3] = {0};
    WCHAR *block = NULL;
    DWORD error = prepare_target(run, &target, &block);

    if (!error && !(program->job = CreateJobObjectW(NULL, NULL))) error = GetLastError();
    if (!error) error = open_streams(program, run, descriptors, handles);
    else
        for (int index = 0; index < count; index++) linux_close(descriptors[index]);
    if (!error) error = create_process(program, run, &target, block, handles);
    for (int index = 0; index < 3; index++)
        if (handles[index]) CloseHandle(handles[index]);
    release(target.file);
    release(target.command);
    release(block);
    return error;
}

/* Whoever ended the main program hears that it was done, before the silo goes with it. */
static void await_answers(struct program *program)
{
    for (int tries = 0; tries < ANSWER_PATIENCE_MS && InterlockedCompareExchange(&program->signals, 0, 0); tries++) Sleep(1);
}

static void wait_for_end(struct program *program, int socket)
{
    DWORD code = 0;

    if (program->flags & RUN_TTY) attend_terminal(&program->terminal);
    program_started();
    WaitForSingleObject(program->process, INFINITE);
    if (program->flags & RUN_PARK) await_allowed_end();
    GetExitCodeProcess(program->process, &code);
    stop_input(&program->input);
    drain_output(&program->output);
    drain_output(&program->error);
    answer_number(socket, EXITED, code);
    if (!(program->flags & RUN_MAIN)) return;
    await_answers(program);
    end_silo(code, !(program->flags & RUN_NO_FLUSH));
}

/* The descriptors of a request: those passed with it, or the container's own, which can be used once. */
static BOOL choose_descriptors(const struct run_request *run, struct program *program, int *descriptors, int *count)
{
    static LONG main_used;

    if (!(run->flags & RUN_MAIN)) return *count == (run->flags & RUN_TTY ? 1 : 3);
    if (*count || InterlockedExchange(&main_used, 1)) return FALSE;
    main_program = program;
    descriptors[0] = FD_INPUT;
    descriptors[1] = FD_OUTPUT;
    descriptors[2] = FD_ERROR;
    *count = 3;
    if (run->flags & RUN_TTY) {
        linux_close(FD_OUTPUT);
        linux_close(FD_ERROR);
        *count = 1;
    }
    return TRUE;
}

void run_program(int socket, struct message *request, int *descriptors, int count)
{
    struct run_request run = {0};
    struct program *program = allocate(sizeof(*program));
    DWORD error = ERROR_INVALID_PARAMETER;

    memset(program, 0, sizeof(*program));
    program->references = 1;
    if (take_request(&run, request) && choose_descriptors(&run, program, descriptors, &count)) {
        program->flags = run.flags;
        error = start_program(program, &run, descriptors, count);
    } else
        for (int index = 0; index < count; index++) linux_close(descriptors[index]);
    if (error) {
        if (main_program == program) main_program = NULL;
        answer_failed(socket, error, run.path && *run.path ? run.path : run.command ? run.command : L"");
    } else {
        start_stream(&program->input, FALSE);
        start_stream(&program->output, TRUE);
        start_stream(&program->error, TRUE);
        if (program->flags & RUN_PARK) park_program(program);
        list_program(program);
        answer_number(socket, STARTED, program->pid);
        wait_for_end(program, socket);
        unlist_program(program);
    }
    release_request(&run);
    release_program(program);
}
