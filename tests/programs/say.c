/* Says what it was given, and does what it is told:
 *
 *     say.exe args WORD...     its command line as it came, then each word that Windows makes of it
 *     say.exe env NAME...      variables
 *     say.exe exit CODE        ends with this code, all 32 bits of it
 *     say.exe crash            reads from address 0
 *     say.exe events           says which console events come; ends with 20 + event
 *     say.exe deaf             the same, but goes on
 *     say.exe size             the console's size, and again when it changes
 *     say.exe input            counts what comes on standard input until it ends
 *     say.exe both             writes to standard output and standard error
 */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

static BOOL deaf;

static void say(const WCHAR *format, ...)
{
    static WCHAR text[40000];
    static char bytes[120000];
    va_list values;
    DWORD done;
    int size;

    va_start(values, format);
    _vsnwprintf(text, 40000, format, values);
    va_end(values);
    size = WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof(bytes), NULL, NULL);
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), bytes, (DWORD)size - 1, &done, NULL);
}

static BOOL WINAPI on_event(DWORD event)
{
    say(L"event %lu\n", event);
    if (!deaf) ExitProcess(20 + event);
    Sleep(INFINITE);
    return TRUE;
}

static int wait_for_events(void)
{
    SetConsoleCtrlHandler(NULL, FALSE);
    SetConsoleCtrlHandler(on_event, TRUE);
    say(L"ready\n");
    Sleep(INFINITE);
    return 0;
}

static int watch_size(void)
{
    HANDLE console = GetStdHandle(STD_OUTPUT_HANDLE);
    CONSOLE_SCREEN_BUFFER_INFO info;
    int columns = 0, rows = 0;

    for (int round = 0; round < 600; round++, Sleep(50)) {
        if (!GetConsoleScreenBufferInfo(console, &info)) {
            say(L"no console %lu\n", GetLastError());
            return 1;
        }
        if (columns == info.srWindow.Right - info.srWindow.Left + 1 && rows == info.srWindow.Bottom - info.srWindow.Top + 1)
            continue;
        columns = info.srWindow.Right - info.srWindow.Left + 1;
        rows = info.srWindow.Bottom - info.srWindow.Top + 1;
        say(L"size %dx%d\r\n", columns, rows);
    }
    return 0;
}

static int count_input(void)
{
    char buffer[4096];
    DWORD count;
    unsigned long long total = 0;

    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), buffer, sizeof(buffer), &count, NULL) && count) total += count;
    say(L"input %llu\n", total);
    return 0;
}

static int crash(void)
{
    volatile int *nowhere = NULL;

    SetErrorMode(SEM_NOGPFAULTERRORBOX);
    return *nowhere;
}

int wmain(int count, WCHAR **words)
{
    WCHAR value[32768];
    DWORD done;

    if (count < 2) return 2;
    if (!wcscmp(words[1], L"args")) {
        say(L"line %ls\n", GetCommandLineW());
        for (int index = 2; index < count; index++) say(L"word <%ls>\n", words[index]);
    } else if (!wcscmp(words[1], L"env")) {
        for (int index = 2; index < count; index++)
            say(L"%ls\n", GetEnvironmentVariableW(words[index], value, 32768) ? value : L"(unset)");
    } else if (!wcscmp(words[1], L"exit") && count > 2) {
        ExitProcess(wcstoul(words[2], NULL, 0));
    } else if (!wcscmp(words[1], L"crash")) {
        return crash();
    } else if (!wcscmp(words[1], L"events") || !wcscmp(words[1], L"deaf")) {
        deaf = !wcscmp(words[1], L"deaf");
        return wait_for_events();
    } else if (!wcscmp(words[1], L"size")) {
        return watch_size();
    } else if (!wcscmp(words[1], L"input")) {
        return count_input();
    } else if (!wcscmp(words[1], L"both")) {
        say(L"to output\n");
        WriteFile(GetStdHandle(STD_ERROR_HANDLE), "to error\n", 9, &done, NULL);
    } else
        return 2;
    return 0;
}
