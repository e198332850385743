/* tzutil: the container's time zone. Wine has no such program, and takes the zone from the C library: /etc/localtime of the
   container, which is written here by the rules of the zone in the registry. Programs that start afterwards have it.

   As on Windows: /g, /l, /s NAME, with _dstoff after the name for no daylight saving time; for ContainerAdministrator alone.

   The file is TZif version 2 (RFC 8536): one transition long ago, and then what its last line says, a rule as POSIX has it. */

#include <windows.h>
#include <wchar.h>

static const WCHAR ZONES[] = L"Software\\Microsoft\\Windows NT\\CurrentVersion\\Time Zones";
static const WCHAR FILE_NAME[] = L"\\\\?\\unix\\etc\\localtime";
static const WCHAR USAGE[] = L"TZUTIL </? | /g | /s TimeZoneID[_dstoff] | /l>\r\n\r\n"
                             L"/g  shows the time zone, /l all there are, /s sets it for programs started from now on.\r\n";

/* The value TZI of a zone, as Windows defines it. */
typedef struct {
    LONG bias, standard_bias, daylight_bias;
    SYSTEMTIME standard_date, daylight_date;
} Zone;

static void say(DWORD stream, const WCHAR *text)
{
    char bytes[1024];
    DWORD written;
    int length = WideCharToMultiByte(GetConsoleOutputCP() ? GetConsoleOutputCP() : CP_ACP, 0, text, lstrlenW(text), bytes,
                                     sizeof(bytes), NULL, NULL);

    WriteFile(GetStdHandle(stream), bytes, (DWORD)length, &written, NULL);
}

static int fail(const WCHAR *text)
{
    say(STD_ERROR_HANDLE, text);
    return 1;
}

static BOOL read_zone(const WCHAR *name, Zone *zone)
{
    WCHAR path[512];
    DWORD size = sizeof(*zone);

    if (lstrlenW(name) > 128 || wcschr(name, '\\')) return FALSE;
    lstrcpyW(path, ZONES);
    lstrcatW(path, L"\\");
    lstrcatW(path, name);
    return !RegGetValueW(HKEY_LOCAL_MACHINE, path, L"TZI", RRF_RT_REG_BINARY, NULL, zone, &size) && size == sizeof(*zone);
}

/* Minutes west of Greenwich as POSIX writes them: `8`, `-5:30`. */
static char *write_offset(char *at, LONG minutes)
{
    LONG size = minutes < 0 ? -minutes : minutes;

    at += wsprintfA(at, "%s%ld", minutes < 0 ? "-" : "", size / 60);
    return size % 60 ? at + wsprintfA(at, ":%02ld", size % 60) : at;
}

/* A name for the time, which POSIX wants. Wine tells a few zones of the same offset apart by their common names. */
static char *write_name(char *at, const WCHAR *zone, LONG minutes)
{
    LONG size = minutes < 0 ? -minutes : minutes;

    if (!lstrcmpiW(zone, L"Tokyo Standard Time")) return at + wsprintfA(at, "JST");
    if (!lstrcmpiW(zone, L"Korea Standard Time")) return at + wsprintfA(at, "KST");
    if (!minutes) return at + wsprintfA(at, "UTC");
    at += wsprintfA(at, "<%c%02ld", minutes < 0 ? '+' : '-', size / 60);
    if (size % 60) at += wsprintfA(at, "%02ld", size % 60);
    return at + wsprintfA(at, ">");
}

static char *write_date(char *at, const SYSTEMTIME *date)
{
    return at + wsprintfA(at, ",M%d.%d.%d/%d:%02d:%02d", date->wMonth, date->wDay, date->wDayOfWeek, date->wHour, date->wMinute,
                          date->wSecond);
}

static char *write_rule(char *at, const WCHAR *name, const Zone *zone, BOOL daylight)
{
    LONG standard = zone->bias + zone->standard_bias, summer = zone->bias + zone->daylight_bias;

    at = write_offset(write_name(at, name, standard), standard);
    if (!daylight || !zone->standard_date.wMonth || !zone->daylight_date.wMonth) return at;
    at = write_offset(write_name(at, name, summer), summer);
    return write_date(write_date(at, &zone->daylight_date), &zone->standard_date);
}

static char *write_big(char *at, LONGLONG number, int bytes)
{
    while (bytes--) *at++ = (char)(number >> (8 * bytes));
    return at;
}

/* Header and data block; `width`: bytes of a moment, 4 in the first block and 8 in the second. */
static char *write_block(char *at, LONG seconds_east, int width)
{
    static const char magic[] = "TZif2";
    static const LONG counts[] = {0, 0, 0, 1, 1, 4};  /* UT indicators, standard ones, leap seconds, moments, types, letters */

    for (int index = 0; index < 20; index++) *at++ = index < 5 ? magic[index] : 0;
    for (int index = 0; index < 6; index++) at = write_big(at, counts[index], 4);
    at = write_big(at, -2147483647, width);
    *at++ = 0;
    at = write_big(at, seconds_east, 4);
    *at++ = 0;
    *at++ = 0;
    for (int index = 0; index < 4; index++) *at++ = "STD"[index];
    return at;
}

static int set_zone(const WCHAR *given)
{
    static const WCHAR off[] = L"_dstoff";
    WCHAR name[160];
    char bytes[512], *end = bytes;
    int length = lstrlenW(given), tail = lstrlenW(off);
    BOOL daylight = TRUE, done;
    DWORD written;
    HANDLE file;
    Zone zone;

    if (length >= 160) return fail(L"The time zone is not known.\r\n");
    lstrcpyW(name, given);
    if (length > tail && !lstrcmpiW(name + length - tail, off)) {
        name[length - tail] = 0;
        daylight = FALSE;
    }
    if (!read_zone(name, &zone)) return fail(L"The time zone is not known: tzutil /l shows those that are.\r\n");
    end = write_block(end, -60 * (zone.bias + zone.standard_bias), 4);
    end = write_block(end, -60 * (zone.bias + zone.standard_bias), 8);
    *end++ = '\n';
    end = write_rule(end, name, &zone, daylight);
    *end++ = '\n';
    file = CreateFileW(FILE_NAME, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) return fail(L"Access is denied: only ContainerAdministrator sets the time zone.\r\n");
    done = WriteFile(file, bytes, (DWORD)(end - bytes), &written, NULL);
    CloseHandle(file);
    return done ? 0 : fail(L"The time zone cannot be written.\r\n");
}

static int list_zones(void)
{
    WCHAR name[256], shown[512];
    DWORD size = ARRAYSIZE(name), bytes;
    HKEY key;

    if (RegOpenKeyExW(HKEY_LOCAL_MACHINE, ZONES, 0, KEY_READ, &key)) return fail(L"The registry has no time zones.\r\n");
    for (DWORD index = 0; !RegEnumKeyExW(key, index, name, &size, NULL, NULL, NULL, NULL); index++, size = ARRAYSIZE(name)) {
        bytes = sizeof(shown);
        if (RegGetValueW(key, name, L"Display", RRF_RT_REG_SZ, NULL, shown, &bytes)) *shown = 0;
        say(STD_OUTPUT_HANDLE, shown);
        say(STD_OUTPUT_HANDLE, L"\r\n");
        say(STD_OUTPUT_HANDLE, name);
        say(STD_OUTPUT_HANDLE, L"\r\n\r\n");
    }
    RegCloseKey(key);
    return 0;
}

int wmain(int count, WCHAR **words)
{
    DYNAMIC_TIME_ZONE_INFORMATION zone;

    if (count == 2 && !lstrcmpiW(words[1], L"/g")) {
        GetDynamicTimeZoneInformation(&zone);
        say(STD_OUTPUT_HANDLE, zone.TimeZoneKeyName);
        return 0;
    }
    if (count == 2 && !lstrcmpiW(words[1], L"/l")) return list_zones();
    if (count == 3 && !lstrcmpiW(words[1], L"/s")) return set_zone(words[2]);
    if (count == 2 && !lstrcmpW(words[1], L"/?")) {
        say(STD_OUTPUT_HANDLE, USAGE);
        return 0;
    }
    return fail(USAGE);
}
