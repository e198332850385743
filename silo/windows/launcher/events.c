/* Console events and termination.
 *
 * Windows delivers a console event by a new thread in every process of the console; so does this, for the processes of one
 * request (its job), which also works for CTRL_CLOSE and CTRL_SHUTDOWN, unknown to Wine's server. Windows of programs without a
 * console are asked to end by messages.
 */
#include "launcher.h"

enum { MAX_PROCESSES = 1024, KILLED = 137, PATIENCE_MS = 5000 };

struct ending {
    HANDLE process, thread;
};

BOOL read_remote(HANDLE process, const void *address, void *value, size_t size)
{
    SIZE_T count;

    return ReadProcessMemory(process, address, value, size, &count) && count == size;
}

static BOOL has_console(HANDLE process)
{
    PROCESS_BASIC_INFORMATION basic;
    uint8_t *parameters;
    int64_t console;

    if (NtQueryInformationProcess(process, ProcessBasicInformation, &basic, sizeof(basic), NULL)) return FALSE;
    if (!read_remote(process, (uint8_t *)basic.PebBaseAddress + 0x20, &parameters, sizeof(parameters))) return FALSE;
    return read_remote(process, parameters + 0x10, &console, sizeof(console)) && console > 0;
}

/* kernelbase lies at the same address in every process, as on Windows; where it does not, no thread is started. */
static void *find_routine(HANDLE process)
{
    void *routine = (void *)GetProcAddress(GetModuleHandleW(L"kernelbase.dll"), "CtrlRoutine");
    uint8_t code[32];

    if (!routine || !read_remote(process, routine, code, sizeof(code)) || memcmp(code, routine, sizeof(code))) return NULL;
    return routine;
}

/* As on Windows, a process does not outlive its handlers of CTRL_CLOSE, CTRL_LOGOFF and CTRL_SHUTDOWN. */
static DWORD WINAPI end_after_handlers(void *argument)
{
    struct ending *ending = argument;
    HANDLE handles[2] = {ending->process, ending->thread};

    if (WaitForMultipleObjects(2, handles, FALSE, INFINITE) == WAIT_OBJECT_0 + 1)
        TerminateProcess(ending->process, (UINT)STATUS_CONTROL_C_EXIT);
    CloseHandle(ending->process);
    CloseHandle(ending->thread);
    release(ending);
    return 0;
}

/* Takes over both handles. */
static void watch_ending(HANDLE process, HANDLE thread)
{
    struct ending *ending = allocate(sizeof(*ending));
    HANDLE watcher;

    ending->process = process;
    ending->thread = thread;
    watcher = CreateThread(NULL, 65536, end_after_handlers, ending, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (watcher) CloseHandle(watcher);
}

typedef BOOL(WINAPI *enumerate_windows_function)(WNDENUMPROC, LPARAM);
typedef DWORD(WINAPI *window_process_function)(HWND, DWORD *);
typedef LRESULT(WINAPI *send_message_function)(HWND, UINT, WPARAM, LPARAM, UINT, UINT, DWORD_PTR *);

static send_message_function send_message;
static window_process_function window_process;

struct search {
    DWORD pid;
    int found;
};

static BOOL CALLBACK ask_window(HWND window, LPARAM parameter)
{
    struct search *search = (struct search *)parameter;
    DWORD pid = 0;
    DWORD_PTR agreed = 0;

    window_process(window, &pid);
    if (pid != search->pid) return TRUE;
    search->found++;
    if (send_message(window, 0x11 /* WM_QUERYENDSESSION */, 0, 0, 2 /* SMTO_ABORTIFHUNG */, PATIENCE_MS, &agreed) && agreed)
        send_message(window, 0x16 /* WM_ENDSESSION */, TRUE, 0, 2, PATIENCE_MS, &agreed);
    return TRUE;
}

static DWORD WINAPI ask_windows(void *argument)
{
    struct search search = {(DWORD)(uintptr_t)argument, 0};
    HMODULE user = LoadLibraryW(L"user32.dll");
    enumerate_windows_function enumerate = (enumerate_windows_function)(void *)GetProcAddress(user, "EnumWindows");

    window_process = (window_process_function)(void *)GetProcAddress(user, "GetWindowThreadProcessId");
    send_message = (send_message_function)(void *)GetProcAddress(user, "SendMessageTimeoutW");
    if (enumerate && window_process && send_message) enumerate(ask_window, (LPARAM)&search);
    return (DWORD)search.found;
}

static HANDLE start_delivery(HANDLE process, DWORD pid, DWORD event)
{
    BOOL console = has_console(process);
    void *routine = console ? find_routine(process) : NULL;

    if (routine)
        return CreateRemoteThread(process, NULL, 0, (LPTHREAD_START_ROUTINE)routine, (void *)(uintptr_t)event, 0, NULL);
    if (console || event < CTRL_CLOSE_EVENT) return NULL;
    return CreateThread(NULL, 0, ask_windows, (void *)(uintptr_t)pid, 0, NULL);
}

static DWORD send_to_process(DWORD pid, DWORD event)
{
    DWORD access = PROCESS_CREATE_THREAD | PROCESS_VM_OPERATION | PROCESS_VM_READ | PROCESS_VM_WRITE |
                   PROCESS_QUERY_INFORMATION | PROCESS_TERMINATE | SYNCHRONIZE;
    HANDLE process = OpenProcess(access, FALSE, pid), thread;

    if (!process) return GetLastError();
    thread = start_delivery(process, pid, event);
    if (thread && event >= CTRL_CLOSE_EVENT) {
        watch_ending(process, thread);
        return 0;
    }
    if (thread) CloseHandle(thread);
    CloseHandle(process);
    return thread ? 0 : ERROR_NOT_FOUND;
}

static DWORD send_to_job(HANDLE job, DWORD event)
{
    DWORD size = sizeof(JOBOBJECT_BASIC_PROCESS_ID_LIST) + MAX_PROCESSES * sizeof(ULONG_PTR), result = ERROR_NOT_FOUND;
    JOBOBJECT_BASIC_PROCESS_ID_LIST *list = allocate(size);

    if (!QueryInformationJobObject(job, JobObjectBasicProcessIdList, list, size, NULL))
        result = GetLastError();
    else
        for (DWORD index = 0; index < list->NumberOfProcessIdsInList; index++)
            if (!send_to_process((DWORD)list->ProcessIdList[index], event)) result = 0;
    release(list);
    return result;
}

DWORD send_event(struct program *program, DWORD event)
{
    switch (event) {
    case 9:
        if (program->flags & RUN_PARK) allow_end();
        return TerminateJobObject(program->job, KILLED) ? 0 : GetLastError();
    case CTRL_C_EVENT:
    case CTRL_BREAK_EVENT:
    case CTRL_CLOSE_EVENT:
    case CTRL_SHUTDOWN_EVENT:
        return send_to_job(program->job, event);
    default:
        return ERROR_INVALID_PARAMETER;
    }
}
