/* Says where it is: `places.exe [PATH]...` prints drives, volumes, names, zone and clock, then `present PATH` or `absent PATH`. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <stdio.h>
#include <time.h>

static void print_drives(void)
{
    DWORD drives = GetLogicalDrives();

    printf("drives ");
    for (char letter = 'A'; letter <= 'Z'; letter++)
        if (drives & (1u << (letter - 'A'))) putchar(letter);
    printf("\n");
}

static void print_volumes(void)
{
    WCHAR volume[MAX_PATH], paths[MAX_PATH] = L"";
    HANDLE search = FindFirstVolumeW(volume, MAX_PATH);
    DWORD size;

    if (search == INVALID_HANDLE_VALUE) return;
    do {
        GetVolumePathNamesForVolumeNameW(volume, paths, MAX_PATH, &size);
        printf("volume %ls\n", paths);
    } while (FindNextVolumeW(search, volume, MAX_PATH));
}

static void print_names(void)
{
    WCHAR text[MAX_PATH];
    DWORD size = MAX_PATH;

    if (GetComputerNameW(text, &size)) printf("computer %ls\n", text);
    size = MAX_PATH;
    if (GetUserNameW(text, &size)) printf("user %ls\n", text);
}

static void print_time(void)
{
    FILETIME now;
    ULARGE_INTEGER value;
    DYNAMIC_TIME_ZONE_INFORMATION zone;
    DWORD kind;
    SYSTEMTIME past = {.wYear = 2001, .wMonth = 1, .wDay = 1};

    _tzset();
    printf("zone %ld\n", _timezone);
    kind = GetDynamicTimeZoneInformation(&zone);
    printf("windows zone %ld %lu %ls\n", zone.Bias, kind, zone.TimeZoneKeyName);
    GetSystemTimeAsFileTime(&now);
    value.LowPart = now.dwLowDateTime;
    value.HighPart = now.dwHighDateTime;
    printf("clock %llu\n", value.QuadPart / 10000000 - 11644473600ull);
    printf("set %d\n", SetSystemTime(&past));
}

int wmain(int count, WCHAR **words)
{
    print_drives();
    print_volumes();
    print_names();
    print_time();
    for (int index = 1; index < count; index++)
        printf("%s %ls\n", GetFileAttributesW(words[index]) == INVALID_FILE_ATTRIBUTES ? "absent" : "present", words[index]);
    return 0;
}
