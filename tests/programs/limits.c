/* What a program finds of its container's limits: `limits.exe disk`, `fill PATH`, `processors`, `burn SECONDS`. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <stdio.h>
#include <wchar.h>

static int show_disk(void)
{
    ULARGE_INTEGER caller, total, free_bytes;

    if (!GetDiskFreeSpaceExW(L"C:\\", &caller, &total, &free_bytes)) return 1;
    printf("total %llu free %llu\n", total.QuadPart, free_bytes.QuadPart);
    return 0;
}

/* Until nothing more is taken, a gibibyte at most: the error and the mebibytes that were. */
static int fill(const WCHAR *path)
{
    static char block[1 << 20];
    HANDLE file = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    DWORD done, error = 0;
    int written = 0;

    if (file == INVALID_HANDLE_VALUE) return 1;
    for (DWORD index = 0; index < sizeof(block); index++) block[index] = (char)(index * 31 >> 3);
    while (written < 1024)
    {
        if (!WriteFile(file, block, sizeof(block), &done, NULL)) { error = GetLastError(); break; }
        written++;
    }
    CloseHandle(file);
    printf("error %lu after %d\n", error, written);
    return 0;
}

static int show_processors(void)
{
    SYSTEM_INFO info;

    GetSystemInfo(&info);
    printf("processors %lu\n", info.dwNumberOfProcessors);
    return 0;
}

static DWORD WINAPI burn_one(void *until)
{
    while (GetTickCount64() < *(ULONGLONG *)until) {}
    return 0;
}

/* Two threads that only compute, for so many seconds: the hundredths of processor seconds that they were given in each. */
static int burn(const WCHAR *text)
{
    int seconds = _wtoi(text);
    ULONGLONG until = GetTickCount64() + seconds * 1000ull;
    FILETIME begun, ended, kernel, user;
    ULARGE_INTEGER used;
    HANDLE threads[2];

    for (int index = 0; index < 2; index++) threads[index] = CreateThread(NULL, 0, burn_one, &until, 0, NULL);
    WaitForMultipleObjects(2, threads, TRUE, INFINITE);
    if (!GetProcessTimes(GetCurrentProcess(), &begun, &ended, &kernel, &user)) return 1;
    used.LowPart = user.dwLowDateTime;
    used.HighPart = user.dwHighDateTime;
    printf("burned %llu\n", used.QuadPart / 100000 / seconds);
    return 0;
}

int wmain(int count, WCHAR **words)
{
    if (count == 2 && !wcscmp(words[1], L"disk")) return show_disk();
    if (count == 3 && !wcscmp(words[1], L"fill")) return fill(words[2]);
    if (count == 2 && !wcscmp(words[1], L"processors")) return show_processors();
    if (count == 3 && !wcscmp(words[1], L"burn")) return burn(words[2]);
    return 2;
}
