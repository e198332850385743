/* The silo as a whole: its name, its services, its end. */
#include "launcher.h"
#include <tlhelp32.h>

enum { HIGHEST_EARLY_PID = 300, SERVICES_DELAY_MS = 20, FLUSH_PATIENCE_MS = 10000, LOST_SERVER = 255 };
enum { WATCH_PATIENCE_MS = 5000 };

static int server_pid, server_watch = -1;
static volatile LONG watching;
static LONG ending;

static BOOL is_server(int pid)
{
    char path[32] = "/proc/", name[11] = {0}, digits[8];
    int place = 0, size = 6, file;

    for (int rest = pid; rest; rest /= 10) digits[place++] = (char)('0' + rest % 10);
    while (place) path[size++] = digits[--place];
    memcpy(path + size, "/comm", 6);
    if ((file = linux_open(path)) < 0) return FALSE;
    linux_read(file, name, 10);
    linux_close(file);
    return !memcmp(name, "wineserver", 10);
}

/* Nothing is left to serve when Wine's server is gone: then the container ends. */
static DWORD WINAPI watch_server(void *unused)
{
    (void)unused;
    watching = 1;
    linux_wait_readable(server_watch, -1);
    if (!ending) linux_exit(LOST_SERVER);
    return 0;
}

typedef LSTATUS(WINAPI *create_key_function)(HKEY, const WCHAR *, DWORD, WCHAR *, DWORD, REGSAM, SECURITY_ATTRIBUTES *, HKEY *,
                                             DWORD *);
typedef LSTATUS(WINAPI *set_value_function)(HKEY, const WCHAR *, DWORD, DWORD, const BYTE *, DWORD);
typedef LSTATUS(WINAPI *close_key_function)(HKEY);
typedef LSTATUS(WINAPI *get_value_function)(HKEY, const WCHAR *, const WCHAR *, DWORD, DWORD *, void *, DWORD *);

static DWORD set_value(HKEY root, const WCHAR *path, const WCHAR *name, const WCHAR *value)
{
    HMODULE base = GetModuleHandleW(L"kernelbase.dll");
    create_key_function create_key = (create_key_function)(void *)GetProcAddress(base, "RegCreateKeyExW");
    set_value_function set = (set_value_function)(void *)GetProcAddress(base, "RegSetValueExW");
    close_key_function close_key = (close_key_function)(void *)GetProcAddress(base, "RegCloseKey");
    HKEY key;
    LSTATUS status = create_key(root, path, 0, NULL, 0, KEY_SET_VALUE, NULL, &key, NULL);

    if (status) return (DWORD)status;
    status = set(key, name, 0, REG_SZ, (const BYTE *)value, (DWORD)((wcslen(value) + 1) * sizeof(WCHAR)));
    close_key(key);
    return (DWORD)status;
}

/* A crashed program ends with its exception's code. Wine would first start a debugger, which takes a second and writes a
 * report to standard output; an empty command line cannot be started. */
static void disable_debugger(void)
{
    static const WCHAR KEY[] = L"Software\\Microsoft\\Windows NT\\CurrentVersion\\AeDebug";
    WCHAR command[8] = L"";
    DWORD size = sizeof(command);
    get_value_function get = (get_value_function)(void *)GetProcAddress(GetModuleHandleW(L"kernelbase.dll"), "RegGetValueW");
    LSTATUS status = get(HKEY_LOCAL_MACHINE, KEY, L"Debugger", 2 /* RRF_RT_REG_SZ */, NULL, command, &size);

    if (status || *command) set_value(HKEY_LOCAL_MACHINE, KEY, L"Debugger", L"");
}

/* A thread is born with the server's help. One whose server died meanwhile never runs, and nobody would notice that death: so
 * nothing is served before the watch has begun. (No event of Windows' for this: it would be the server's as well.) */
void await_watch(void)
{
    for (int tries = 0; server_watch >= 0 && !watching; tries++) {
        if (tries == WATCH_PATIENCE_MS) linux_exit(LOST_SERVER);
        linux_wait_readable(server_watch, 1);
    }
}

static void allow_processors(DWORD_PTR mask)
{
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry;

    entry.dwSize = sizeof(entry);
    for (BOOL more = Process32FirstW(snapshot, &entry); more; more = Process32NextW(snapshot, &entry)) {
        HANDLE process = OpenProcess(PROCESS_SET_INFORMATION, FALSE, entry.th32ProcessID);

        if (!process) continue;
        SetProcessAffinityMask(process, mask);
        CloseHandle(process);
    }
    CloseHandle(snapshot);
}

/* A silo starts on one processor, which is faster, and gets the others a moment later. What Wine found at its start it took
 * for all that there is, and would bind every process to it: so the processes of now, and with them those that they start, are
 * told the truth. */
void prepare_processors(void)
{
    WCHAR text[32];
    DWORD length = GetEnvironmentVariableW(L"SILO_PROCESSORS", text, ARRAYSIZE(text));
    DWORD_PTR mask = 0, own, all;

    if (!length || length >= ARRAYSIZE(text) || !GetProcessAffinityMask(GetCurrentProcess(), &own, &all)) return;
    for (const WCHAR *digit = text; *digit; digit++)
        mask = mask << 4 | (DWORD_PTR)(*digit >= 'a' ? *digit - 'a' + 10 : *digit - '0');
    if (!(mask &= all)) return;
    /* Twice, for a process that was being made during the first time. */
    allow_processors(mask);
    allow_processors(mask);
}

/* The server was started by this process, before any program: its number is among the first. */
void prepare_silo(void)
{
    HANDLE thread;

    disable_debugger();
    if (linux_pid() == 1) linux_ignore_children();
    for (int pid = 2; pid < HIGHEST_EARLY_PID && !server_pid; pid++)
        if (is_server(pid)) server_pid = pid;
    if (server_pid) server_watch = linux_watch(server_pid);
    if (server_watch < 0) return;
    thread = CreateThread(NULL, 65536, watch_server, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (thread) CloseHandle(thread);
}

/* Wine's server writes the registry when it is told to end. Everything else dies with pid 1. */
void end_silo(uint32_t code, BOOL flush)
{
    if (InterlockedExchange(&ending, 1)) Sleep(INFINITE);
    linux_write(FD_STATUS, &code, sizeof(code));
    if (server_watch >= 0 && (flush || linux_pid() != 1) && linux_kill(server_pid, LINUX_SIGTERM) >= 0)
        linux_wait_readable(server_watch, FLUSH_PATIENCE_MS);
    linux_exit((int)(code & 255));
}

typedef void *(WINAPI *open_manager_function)(const WCHAR *, const WCHAR *, DWORD);
typedef void *(WINAPI *open_service_function)(void *, const WCHAR *, DWORD);
typedef BOOL(WINAPI *start_service_function)(void *, DWORD, const WCHAR **);
typedef BOOL(WINAPI *close_service_function)(void *);

/* GetAdaptersAddresses and the like need the driver nsiproxy. It is not part of a cold start, which it would prolong. */
static DWORD WINAPI start_services(void *unused)
{
    HMODULE library;
    open_manager_function open_manager;
    open_service_function open_service;
    start_service_function start_service;
    close_service_function close_service;
    void *manager, *service = NULL;

    (void)unused;
    Sleep(SERVICES_DELAY_MS);
    if (!(library = LoadLibraryW(L"sechost.dll"))) return 0;
    open_manager = (open_manager_function)(void *)GetProcAddress(library, "OpenSCManagerW");
    open_service = (open_service_function)(void *)GetProcAddress(library, "OpenServiceW");
    start_service = (start_service_function)(void *)GetProcAddress(library, "StartServiceW");
    close_service = (close_service_function)(void *)GetProcAddress(library, "CloseServiceHandle");
    if ((manager = open_manager(NULL, NULL, 1 /* SC_MANAGER_CONNECT */)))
        service = open_service(manager, L"nsiproxy", 0x10 /* SERVICE_START */);
    if (service) {
        start_service(service, 0, NULL);
        close_service(service);
    }
    if (manager) close_service(manager);
    FreeLibrary(library);
    return 0;
}

void program_started(void)
{
    static LONG done;
    HANDLE thread;

    if (InterlockedExchange(&done, 1)) return;
    thread = CreateThread(NULL, 0, start_services, NULL, 0, NULL);
    if (thread) CloseHandle(thread);
}

DWORD set_computer_name(const WCHAR *name)
{
    static const WCHAR NAMES[] = L"System\\CurrentControlSet\\Control\\ComputerName\\";
    static const WCHAR TCPIP[] = L"System\\CurrentControlSet\\Services\\Tcpip\\Parameters";
    WCHAR netbios[MAX_NETBIOS_CHARACTERS + 1], *stored, *active, *server;
    size_t length = 0;
    DWORD error;

    for (; length < MAX_NETBIOS_CHARACTERS && name[length] && name[length] != '.'; length++)
        netbios[length] = name[length] >= 'a' && name[length] <= 'z' ? name[length] - 32 : name[length];
    netbios[length] = 0;
    if (!length || !parked_can_have_name(netbios)) return ERROR_INVALID_PARAMETER;
    stored = join_text(NAMES, L"ComputerName", L"");
    active = join_text(NAMES, L"ActiveComputerName", L"");
    server = join_text(L"\\\\", netbios, L"");
    error = set_value(HKEY_LOCAL_MACHINE, stored, L"ComputerName", netbios);
    if (!error) error = set_value(HKEY_LOCAL_MACHINE, active, L"ComputerName", netbios);
    if (!error) error = set_value(HKEY_LOCAL_MACHINE, TCPIP, L"Hostname", name);
    if (!error) error = set_value(HKEY_LOCAL_MACHINE, TCPIP, L"NV Hostname", name);
    if (!error) error = set_value(HKEY_CURRENT_USER, L"Volatile Environment", L"USERDOMAIN", netbios);
    if (!error) error = set_value(HKEY_CURRENT_USER, L"Volatile Environment", L"LOGONSERVER", server);
    if (!error && !SetEnvironmentVariableW(L"COMPUTERNAME", netbios)) error = GetLastError();
    if (!error) error = rename_parked(netbios);
    release(stored);
    release(active);
    release(server);
    return error;
}
