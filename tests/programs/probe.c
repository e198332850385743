/* Holds things of Windows, or looks for those that another program holds.
 *
 *     probe.exe hold TOKEN     makes one of each kind, prints `held NAME` or `failed NAME ERROR`, then `ready`, and stays
 *     probe.exe look TOKEN     prints `met NAME` or `alone NAME` for each kind
 *     probe.exe victim TOKEN   waits to be found
 *
 * Where both see one silo every line of `look` says met; where each has its own every line says alone.
 */
#include "probe.h"
#include <stdio.h>
#include <tlhelp32.h>
#include <wchar.h>

#define VICTIM L"victim.exe"

WCHAR token[NAME_CHARACTERS];
char narrow_token[NAME_CHARACTERS];

const WCHAR *named(const WCHAR *prefix)
{
    static WCHAR name[2 * NAME_CHARACTERS];

    swprintf(name, 2 * NAME_CHARACTERS, L"%ls%ls", prefix, token);
    return name;
}

static BOOL hold_mutex(const struct kind *kind) { return CreateMutexW(NULL, FALSE, named(kind->prefix)) != NULL; }
static BOOL look_mutex(const struct kind *kind) { return OpenMutexW(SYNCHRONIZE, FALSE, named(kind->prefix)) != NULL; }
static BOOL hold_event(const struct kind *kind) { return CreateEventW(NULL, TRUE, FALSE, named(kind->prefix)) != NULL; }
static BOOL look_event(const struct kind *kind) { return OpenEventW(SYNCHRONIZE, FALSE, named(kind->prefix)) != NULL; }
static BOOL hold_semaphore(const struct kind *kind) { return CreateSemaphoreW(NULL, 0, 1, named(kind->prefix)) != NULL; }
static BOOL look_semaphore(const struct kind *kind) { return OpenSemaphoreW(SYNCHRONIZE, FALSE, named(kind->prefix)) != NULL; }
static BOOL hold_timer(const struct kind *kind) { return CreateWaitableTimerW(NULL, TRUE, named(kind->prefix)) != NULL; }
static BOOL look_timer(const struct kind *kind) { return OpenWaitableTimerW(SYNCHRONIZE, FALSE, named(kind->prefix)) != NULL; }
static BOOL hold_job(const struct kind *kind) { return CreateJobObjectW(NULL, named(kind->prefix)) != NULL; }
static BOOL look_job(const struct kind *kind) { return OpenJobObjectW(JOB_OBJECT_QUERY, FALSE, named(kind->prefix)) != NULL; }

static BOOL hold_section(const struct kind *kind)
{
    return CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, 4096, named(kind->prefix)) != NULL;
}

static BOOL look_section(const struct kind *kind) { return OpenFileMappingW(FILE_MAP_READ, FALSE, named(kind->prefix)) != NULL; }

static BOOL hold_mailslot(const struct kind *kind)
{
    return CreateMailslotW(named(kind->prefix), 0, MAILSLOT_WAIT_FOREVER, NULL) != INVALID_HANDLE_VALUE;
}

static BOOL hold_pipe(const struct kind *kind)
{
    return CreateNamedPipeW(named(kind->prefix), PIPE_ACCESS_DUPLEX, PIPE_TYPE_BYTE, PIPE_UNLIMITED_INSTANCES, 4096, 4096, 0,
                            NULL) != INVALID_HANDLE_VALUE;
}

static BOOL look_open(const struct kind *kind)
{
    return CreateFileW(named(kind->prefix), GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL) !=
           INVALID_HANDLE_VALUE;
}

static BOOL hold_atom(const struct kind *kind) { return GlobalAddAtomW(named(kind->prefix)) != 0; }
static BOOL look_atom(const struct kind *kind) { return GlobalFindAtomW(named(kind->prefix)) != 0; }

static BOOL make_key(HKEY root, const WCHAR *path, DWORD options)
{
    DWORD value = 1;
    HKEY key;

    SetLastError((DWORD)RegCreateKeyExW(root, path, 0, NULL, options, KEY_ALL_ACCESS, NULL, &key, NULL));
    return !GetLastError() && !RegSetValueExW(key, L"value", 0, REG_DWORD, (const BYTE *)&value, sizeof(value));
}

static BOOL find_key(HKEY root, const WCHAR *path)
{
    HKEY key;

    return !RegOpenKeyExW(root, path, 0, KEY_READ, &key);
}

static BOOL hold_machine_key(const struct kind *kind) { return make_key(HKEY_LOCAL_MACHINE, named(kind->prefix), 0); }
static BOOL look_machine_key(const struct kind *kind) { return find_key(HKEY_LOCAL_MACHINE, named(kind->prefix)); }
static BOOL hold_user_key(const struct kind *kind) { return make_key(HKEY_CURRENT_USER, named(kind->prefix), 0); }
static BOOL look_user_key(const struct kind *kind) { return find_key(HKEY_CURRENT_USER, named(kind->prefix)); }
static BOOL hold_users_key(const struct kind *kind) { return make_key(HKEY_USERS, named(kind->prefix), 0); }
static BOOL look_users_key(const struct kind *kind) { return find_key(HKEY_USERS, named(kind->prefix)); }

static BOOL hold_volatile_key(const struct kind *kind)
{
    return make_key(HKEY_LOCAL_MACHINE, named(kind->prefix), REG_OPTION_VOLATILE);
}

static BOOL hold_file(const struct kind *kind)
{
    HANDLE file = CreateFileW(named(kind->prefix), GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, CREATE_ALWAYS, 0, NULL);

    if (file == INVALID_HANDLE_VALUE) return FALSE;
    CloseHandle(file);
    return TRUE;
}

/* In capitals: drive C: does not tell cases apart. */
static BOOL look_file(const struct kind *kind)
{
    WCHAR name[2 * NAME_CHARACTERS];

    wcscpy(name, named(kind->prefix));
    CharUpperW(name);
    return GetFileAttributesW(name) != INVALID_FILE_ATTRIBUTES;
}

static const WCHAR *temporary(void)
{
    static WCHAR name[2 * NAME_CHARACTERS];

    GetTempPathW(NAME_CHARACTERS, name);
    return wcscat(wcscat(name, token), L".tmp");
}

static BOOL hold_temporary(const struct kind *kind)
{
    HANDLE file = CreateFileW(temporary(), GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);

    (void)kind;
    if (file == INVALID_HANDLE_VALUE) return FALSE;
    CloseHandle(file);
    return TRUE;
}

static BOOL look_temporary(const struct kind *kind)
{
    (void)kind;
    return GetFileAttributesW(temporary()) != INVALID_FILE_ATTRIBUTES;
}

/* A file of the base image: whoever deletes it must leave it to all others. */
static BOOL hold_deletion(const struct kind *kind) { return DeleteFileW(kind->prefix); }
static BOOL look_deletion(const struct kind *kind) { return GetFileAttributesW(kind->prefix) == INVALID_FILE_ATTRIBUTES; }

static BOOL hold_drive(const struct kind *kind)
{
    (void)kind;
    return DefineDosDeviceW(0, L"Q:", L"C:\\windows");
}

static BOOL look_drive(const struct kind *kind)
{
    WCHAR target[MAX_PATH];

    (void)kind;
    return QueryDosDeviceW(L"Q:", target, MAX_PATH) != 0;
}

static BOOL hold_service(const struct kind *kind)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_ALL_ACCESS);

    return manager && CreateServiceW(manager, named(kind->prefix), NULL, SERVICE_ALL_ACCESS, SERVICE_WIN32_OWN_PROCESS,
                                     SERVICE_DEMAND_START, SERVICE_ERROR_IGNORE, L"C:\\nothing.exe", NULL, NULL, NULL, NULL, NULL);
}

static BOOL look_service(const struct kind *kind)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);

    return manager && OpenServiceW(manager, named(kind->prefix), SERVICE_QUERY_STATUS);
}

static BOOL hold_clipboard(const struct kind *kind)
{
    HGLOBAL memory = GlobalAlloc(GMEM_MOVEABLE, sizeof(token));

    (void)kind;
    memcpy(GlobalLock(memory), token, sizeof(token));
    GlobalUnlock(memory);
    if (!OpenClipboard(NULL) || !EmptyClipboard() || !SetClipboardData(CF_UNICODETEXT, memory)) return FALSE;
    return CloseClipboard();
}

static BOOL look_clipboard(const struct kind *kind)
{
    HGLOBAL memory;
    BOOL met;

    (void)kind;
    if (!OpenClipboard(NULL)) return FALSE;
    memory = GetClipboardData(CF_UNICODETEXT);
    met = memory && !wcscmp(GlobalLock(memory), token);
    CloseClipboard();
    return met;
}

enum { QUESTION = WM_APP + 1, ANSWER = 4711 };

static LRESULT CALLBACK answer_message(HWND window, UINT message, WPARAM wide, LPARAM parameter)
{
    return message == QUESTION ? ANSWER : DefWindowProcW(window, message, wide, parameter);
}

static BOOL hold_window(const struct kind *kind)
{
    WNDCLASSW class = {.lpfnWndProc = answer_message, .hInstance = GetModuleHandleW(NULL), .lpszClassName = token};

    (void)kind;
    return RegisterClassW(&class) && CreateWindowExW(0, token, token, 0, 0, 0, 0, 0, HWND_MESSAGE, NULL, NULL, NULL);
}

static BOOL look_window(const struct kind *kind)
{
    HWND window = FindWindowExW(HWND_MESSAGE, NULL, NULL, token);
    DWORD_PTR answer = 0;

    (void)kind;
    return window && SendMessageTimeoutW(window, QUESTION, 0, 0, SMTO_ABORTIFHUNG, 5000, &answer) && answer == ANSWER;
}

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(LOOPBACK_PORT)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static BOOL hold_port(const struct kind *kind)
{
    struct sockaddr_in address = loopback();
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);

    (void)kind;
    return !bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 5);
}

static BOOL look_port(const struct kind *kind)
{
    struct sockaddr_in address = loopback();

    (void)kind;
    return !connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address));
}

static BOOL look_port_taken(const struct kind *kind)
{
    struct sockaddr_in address = loopback();

    (void)kind;
    return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address)) != 0;
}

static BOOL hold_victim(const struct kind *kind)
{
    WCHAR own[NAME_CHARACTERS], folder[NAME_CHARACTERS], path[2 * NAME_CHARACTERS], command[3 * NAME_CHARACTERS];
    STARTUPINFOW startup = {.cb = sizeof(startup)};
    PROCESS_INFORMATION started;

    (void)kind;
    GetModuleFileNameW(NULL, own, NAME_CHARACTERS);
    GetTempPathW(NAME_CHARACTERS, folder);
    swprintf(path, 2 * NAME_CHARACTERS, L"%ls%ls", folder, VICTIM);
    swprintf(command, 3 * NAME_CHARACTERS, L"%ls victim %ls", path, token);
    return CopyFileW(own, path, FALSE) &&
           CreateProcessW(path, command, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &started);
}

static DWORD find_victim(void)
{
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry = {.dwSize = sizeof(entry)};

    for (BOOL more = Process32FirstW(snapshot, &entry); more; more = Process32NextW(snapshot, &entry))
        if (!_wcsicmp(entry.szExeFile, VICTIM)) return entry.th32ProcessID;
    return 0;
}

static BOOL look_listed(const struct kind *kind)
{
    (void)kind;
    return find_victim() != 0;
}

static BOOL look_opened(const struct kind *kind)
{
    (void)kind;
    return find_victim() && OpenProcess(PROCESS_VM_READ | PROCESS_TERMINATE, FALSE, find_victim());
}

static BOOL look_killed(const struct kind *kind)
{
    HANDLE process = find_victim() ? OpenProcess(PROCESS_TERMINATE, FALSE, find_victim()) : NULL;

    (void)kind;
    return process && TerminateProcess(process, 1);
}

#define OBJECTS(space)                                                                                                          \
    {"mutex in " space, hold_mutex, look_mutex, L##space L"mutex-"},                                                             \
        {"event in " space, hold_event, look_event, L##space L"event-"},                                                         \
        {"semaphore in " space, hold_semaphore, look_semaphore, L##space L"semaphore-"},                                         \
        {"timer in " space, hold_timer, look_timer, L##space L"timer-"},                                                         \
        {"section in " space, hold_section, look_section, L##space L"section-"},                                                 \
        {"job in " space, hold_job, look_job, L##space L"job-"}

static const struct kind windows_kinds[] = {
    OBJECTS("Local\\"),
    OBJECTS("Global\\"),
    {"mailslot", hold_mailslot, look_open, L"\\\\.\\mailslot\\"},
    {"pipe", hold_pipe, look_open, L"\\\\.\\pipe\\"},
    {"atom", hold_atom, look_atom, L""},
    {"HKLM", hold_machine_key, look_machine_key, L"Software\\"},
    {"HKCU", hold_user_key, look_user_key, L"Software\\"},
    {"HKU", hold_users_key, look_users_key, L".Default\\Software\\"},
    {"volatile key", hold_volatile_key, look_machine_key, L"Software\\volatile-"},
    {"file", hold_file, look_file, L"C:\\"},
    {"stream", hold_file, look_file, L"C:\\windows\\system.ini:"},
    {"temporary file", hold_temporary, look_temporary, NULL},
    {"deletion", hold_deletion, look_deletion, L"C:\\windows\\win.ini"},
    {"drive", hold_drive, look_drive, NULL},
    {"service", hold_service, look_service, L"silo"},
    {"clipboard", hold_clipboard, look_clipboard, NULL},
    {"window", hold_window, look_window, NULL},
    {"port", hold_port, look_port, NULL},
    {"port taken", NULL, look_port_taken, NULL},
    {"process listed", hold_victim, look_listed, NULL},
    {"process opened", NULL, look_opened, NULL},
    {0},
};

/* After all that needs it alive. */
static const struct kind last_kinds[] = {{"process killed", NULL, look_killed, NULL}, {0}};

static void hold_all(const struct kind *kind)
{
    for (; kind->name; kind++) {
        if (!kind->hold) continue;
        SetLastError(0);
        if (kind->hold(kind)) printf("held %s\n", kind->name);
        else printf("failed %s %lu\n", kind->name, (unsigned long)GetLastError());
    }
}

static void look_for_all(const struct kind *kind)
{
    for (; kind->name; kind++) printf("%s %s\n", kind->look(kind) ? "met" : "alone", kind->name);
}

int wmain(int count, WCHAR **words)
{
    WSADATA sockets;
    MSG message;

    if (count != 3) return 2;
    wcsncpy(token, words[2], NAME_CHARACTERS - 1);
    WideCharToMultiByte(CP_UTF8, 0, token, -1, narrow_token, NAME_CHARACTERS, NULL, NULL);
    WSAStartup(MAKEWORD(2, 2), &sockets);
    if (!wcscmp(words[1], L"look")) {
        look_for_all(windows_kinds);
        look_for_all(linux_kinds);
        look_for_all(last_kinds);
        return 0;
    }
    if (!wcscmp(words[1], L"hold")) {
        hold_all(windows_kinds);
        hold_all(linux_kinds);
        printf("ready\n");
        fflush(stdout);
        while (GetMessageW(&message, NULL, 0, 0) > 0) DispatchMessageW(&message);
    }
    Sleep(INFINITE);
    return 0;
}
