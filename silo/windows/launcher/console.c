/* Consoles.
 *
 * A console program without a console makes its children start one each (40 ms). So every program without a terminal gets the
 * *common console*: made by the launcher, but its host, conhost.exe, is started only when somebody first asks it something.
 *
 * A program with a terminal gets a console of its own, whose conhost works on the pseudo terminal itself (`--unix`). Wine's
 * CreatePseudoConsole is no use: its conhost stops reading at a Ctrl-C, clears the screen, and cannot be resized.
 */
#include "launcher.h"
#include <winioctl.h>

#define CONSOLE_IOCTL(number, access) CTL_CODE(FILE_DEVICE_CONSOLE, number, METHOD_BUFFERED, access)
#define GET_INPUT_COUNT CONSOLE_IOCTL(25, FILE_READ_ACCESS)
#define GET_OUTPUT_INFO CONSOLE_IOCTL(34, FILE_READ_ACCESS)
#define SET_OUTPUT_INFO CONSOLE_IOCTL(35, FILE_WRITE_ACCESS)

/* Wine 10, include/wine/condrv.h */
enum { SET_SIZE = 0x4, SET_WINDOW = 0x10, SET_MAXIMUM = 0x20 };

struct output_info {
    int16_t cursor_size, cursor_visible, cursor_x, cursor_y, width, height, attribute, popup_attribute;
    int16_t left, top, right, bottom, max_width, max_height, font_width, font_height, font_weight, font_family;
    uint32_t colours[16];
};

struct output_change {
    uint32_t mask;
    struct output_info info;
};

NTSTATUS CDECL wine_server_fd_to_handle(int descriptor, unsigned int access, unsigned int attributes, HANDLE *handle);

static struct console common;
static HANDLE common_server;
static INIT_ONCE common_once = INIT_ONCE_STATIC_INIT;
/* The launcher can be attached to one console at a time. */
static CRITICAL_SECTION attaching;

static HANDLE open_device(HANDLE root, const WCHAR *name, ACCESS_MASK access, ULONG attributes)
{
    UNICODE_STRING text;
    OBJECT_ATTRIBUTES object;
    IO_STATUS_BLOCK status;
    HANDLE handle;

    RtlInitUnicodeString(&text, name);
    InitializeObjectAttributes(&object, &text, attributes, root, NULL);
    if (NtCreateFile(&handle, access | SYNCHRONIZE, &object, &status, NULL, FILE_ATTRIBUTE_NORMAL,
                     FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN,
                     FILE_NON_DIRECTORY_FILE | FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))
        return NULL;
    return handle;
}

static HANDLE open_server(HANDLE *reference)
{
    HANDLE server = open_device(NULL, L"\\Device\\ConDrv\\Server", FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES, OBJ_INHERIT);

    if (!server) return NULL;
    *reference = open_device(server, L"Reference", FILE_READ_DATA | FILE_WRITE_DATA, 0);
    if (*reference) return server;
    CloseHandle(server);
    return NULL;
}

static WCHAR *put_word(WCHAR *end, const WCHAR *word)
{
    while (*word) *end++ = *word++;
    *end = 0;
    return end;
}

static WCHAR *put_number(WCHAR *end, uint32_t number)
{
    WCHAR digits[11];
    int place = 10;

    digits[place] = 0;
    do digits[--place] = (WCHAR)('0' + number % 10);
    while (number /= 10);
    return put_word(end, digits + place);
}

/* `input` and `output` are NULL for a console that nobody sees. */
static DWORD start_host(HANDLE server, HANDLE input, HANDLE output, uint16_t columns, uint16_t rows, HANDLE *host)
{
    uint8_t space[256];
    SIZE_T size = sizeof(space);
    HANDLE handles[3] = {server, input, output};
    STARTUPINFOEXW startup = {0};
    PROCESS_INFORMATION started;
    WCHAR command[256], *end = put_word(command, L"conhost.exe --server ");
    BOOL success;

    end = put_number(end, (uint32_t)(uintptr_t)server);
    end = put_word(end, input ? L" --unix --width " : L" --headless --width ");
    end = put_number(end, columns);
    end = put_word(end, L" --height ");
    put_number(end, rows);
    startup.StartupInfo.cb = sizeof(startup);
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = input;
    startup.StartupInfo.hStdOutput = startup.StartupInfo.hStdError = output;
    startup.lpAttributeList = (LPPROC_THREAD_ATTRIBUTE_LIST)space;
    if (!InitializeProcThreadAttributeList(startup.lpAttributeList, 1, 0, &size)) return GetLastError();
    UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles,
                              (input ? 3 : 1) * sizeof(HANDLE), NULL, NULL);
    success = CreateProcessW(L"C:\\windows\\system32\\conhost.exe", command, NULL, NULL, TRUE,
                             DETACHED_PROCESS | EXTENDED_STARTUPINFO_PRESENT, NULL, L"C:\\", &startup.StartupInfo, &started);
    if (!success) return GetLastError();
    CloseHandle(started.hThread);
    *host = started.hProcess;
    return 0;
}

static DWORD WINAPI await_first_question(void *unused)
{
    (void)unused;
    WaitForSingleObject(common_server, INFINITE);
    start_host(common_server, NULL, NULL, 120, 50, &common.host);
    CloseHandle(common_server);
    return 0;
}

static BOOL CALLBACK make_common_console(INIT_ONCE *once, void *parameter, void **context)
{
    HANDLE thread;

    (void)once, (void)parameter, (void)context;
    if (!(common_server = open_server(&common.reference))) return TRUE;
    thread = CreateThread(NULL, 65536, await_first_question, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (thread) CloseHandle(thread);
    return TRUE;
}

struct console *common_console(void)
{
    InitOnceExecuteOnce(&common_once, make_common_console, NULL, NULL);
    return common.reference ? &common : NULL;
}

void prepare_consoles(void)
{
    InitializeCriticalSection(&attaching);
}

DWORD open_terminal(struct console *console, int descriptor, uint16_t columns, uint16_t rows)
{
    HANDLE server = open_server(&console->reference), input = NULL, output = NULL;
    DWORD error = ERROR_INVALID_HANDLE;

    linux_make_raw(descriptor);
    if (server && !wine_server_fd_to_handle(descriptor, GENERIC_READ | SYNCHRONIZE, OBJ_INHERIT, &input) &&
        !wine_server_fd_to_handle(descriptor, GENERIC_WRITE | SYNCHRONIZE, OBJ_INHERIT, &output))
        error = start_host(server, input, output, columns ? columns : 80, rows ? rows : 25, &console->host);
    if (input) CloseHandle(input);
    if (output) CloseHandle(output);
    if (server) CloseHandle(server);
    linux_close(descriptor);
    return error;
}

DWORD open_terminal_handles(HANDLE handles[3])
{
    ACCESS_MASK access = FILE_READ_DATA | FILE_WRITE_DATA | FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES;

    handles[0] = open_device(NULL, L"\\Device\\ConDrv\\Input", access, OBJ_INHERIT);
    handles[1] = open_device(NULL, L"\\Device\\ConDrv\\Output", access, OBJ_INHERIT);
    handles[2] = open_device(NULL, L"\\Device\\ConDrv\\Output", access, OBJ_INHERIT);
    return handles[0] && handles[1] && handles[2] ? 0 : ERROR_INVALID_HANDLE;
}

static NTSTATUS ask(HANDLE device, ULONG code, void *in, ULONG in_size, void *out, ULONG out_size)
{
    IO_STATUS_BLOCK status;

    return NtDeviceIoControlFile(device, NULL, NULL, NULL, &status, code, in, in_size, out, out_size);
}

/* Attach the launcher itself to a console; to be undone by CloseHandle of the answer and leaving `attaching`. */
static HANDLE attach(const struct console *console)
{
    EnterCriticalSection(&attaching);
    return open_device(console->reference, L"Connection", FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES, 0);
}

static void detach(HANDLE connection)
{
    if (connection) CloseHandle(connection);
    LeaveCriticalSection(&attaching);
}

/* Conhost reads its terminal only from the first time that a program asks for input; without this question a Ctrl-C would not
 * reach a program that never does. */
void attend_terminal(struct console *console)
{
    HANDLE connection = attach(console), input = NULL;
    uint32_t count;

    if (connection) input = open_device(NULL, L"\\Device\\ConDrv\\CurrentIn", FILE_READ_DATA, 0);
    if (input) {
        ask(input, GET_INPUT_COUNT, NULL, 0, &count, sizeof(count));
        CloseHandle(input);
    }
    detach(connection);
}

static NTSTATUS change(HANDLE output, uint32_t mask, const struct output_info *info)
{
    struct output_change change = {mask, *info};

    return ask(output, SET_OUTPUT_INFO, &change, sizeof(change), NULL, 0);
}

/* Window and buffer of a terminal have the same size; the window must never be larger than the buffer, not even between. */
static NTSTATUS resize_output(HANDLE output, int16_t columns, int16_t rows)
{
    struct output_info info;
    NTSTATUS status = ask(output, GET_OUTPUT_INFO, NULL, 0, &info, sizeof(info));
    struct output_info wanted = info;

    if (status) return status;
    wanted.left = wanted.top = 0;
    wanted.right = (columns < info.width ? columns : info.width) - 1;
    wanted.bottom = (rows < info.height ? rows : info.height) - 1;
    if ((status = change(output, SET_WINDOW, &wanted))) return status;
    wanted.width = wanted.max_width = columns;
    wanted.height = wanted.max_height = rows;
    if ((status = change(output, SET_SIZE | SET_MAXIMUM, &wanted))) return status;
    wanted.right = columns - 1;
    wanted.bottom = rows - 1;
    return change(output, SET_WINDOW, &wanted);
}

DWORD resize_terminal(struct console *console, uint16_t columns, uint16_t rows)
{
    HANDLE connection = attach(console), output = NULL;
    NTSTATUS status = -1;

    if (connection)
        output = open_device(NULL, L"\\Device\\ConDrv\\CurrentOut", FILE_READ_DATA | FILE_WRITE_DATA, 0);
    if (output) {
        status = resize_output(output, (int16_t)columns, (int16_t)rows);
        CloseHandle(output);
    }
    detach(connection);
    return status ? ERROR_GEN_FAILURE : 0;
}

void close_terminal(struct console *console)
{
    if (console->reference) CloseHandle(console->reference);
    if (console->host) CloseHandle(console->host);
    console->reference = console->host = NULL;
}
