/* setx: writes a variable to the environment in the registry. Wine's own setx.exe accepts every command line and does nothing.

   As on Windows: /M for the machine's environment, /K to copy a registry value, at most 1024 characters, REG_EXPAND_SZ for text
   with percent signs. /S, /U, /P (another computer) and /F (a file) are refused.

   Windows also broadcasts WM_SETTINGCHANGE. Nothing in a silo listens, and loading user32 would triple the time. */

#include <windows.h>

#define MAX_VALUE 1024

static const WCHAR USER_KEY[] = L"Environment";
static const WCHAR MACHINE_KEY[] = L"SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment";
static const WCHAR USAGE[] = L"SETX variable value [/M]\r\nSETX variable /K hive\\key\\...\\value [/M]\r\n\r\n"
                             L"Sets a variable in the environment of the user, or with /M of the machine,\r\n"
                             L"for programs started from now on.\r\n";

static int say(DWORD stream, const WCHAR *text, int code)
{
    char bytes[2048];
    DWORD written;
    int length = WideCharToMultiByte(GetConsoleOutputCP() ? GetConsoleOutputCP() : CP_ACP, 0, text, lstrlenW(text), bytes,
                                     sizeof(bytes), NULL, NULL);

    WriteFile(GetStdHandle(stream), bytes, (DWORD)length, &written, NULL);
    return code;
}

static int invalid(void)
{
    return say(STD_ERROR_HANDLE, L"ERROR: Invalid syntax.\r\nType \"SETX /?\" for usage.\r\n", 1);
}

static BOOL is_option(const WCHAR *word, WCHAR letter)
{
    return (word[0] == '/' || word[0] == '-') && (word[1] | 32) == letter && !word[2];
}

static HKEY find_hive(const WCHAR *name, int length)
{
    static const struct { const WCHAR *name; HKEY key; } HIVES[] = {
        {L"HKLM", HKEY_LOCAL_MACHINE}, {L"HKEY_LOCAL_MACHINE", HKEY_LOCAL_MACHINE},
        {L"HKCU", HKEY_CURRENT_USER}, {L"HKEY_CURRENT_USER", HKEY_CURRENT_USER}};

    for (unsigned i = 0; i < sizeof(HIVES) / sizeof(*HIVES); i++)
        if (CompareStringOrdinal(name, length, HIVES[i].name, -1, TRUE) == CSTR_EQUAL) return HIVES[i].key;
    return NULL;
}

static void write_number(WCHAR *text, DWORD number)
{
    WCHAR digits[11];
    int count = 0;

    do digits[count++] = L'0' + number % 10;
    while (number /= 10);
    while (count) *text++ = digits[--count];
    *text = 0;
}

/* The text of the registry value at HIVE\key\value; FALSE if there is none. */
static BOOL read_value(WCHAR *path, WCHAR *value, DWORD bytes)
{
    WCHAR *key = path, *name = path;
    HKEY hive;
    DWORD number, size = sizeof(number);

    while (*key && *key != '\\') key++;
    if (!*key || !(hive = find_hive(path, (int)(key - path)))) return FALSE;
    for (WCHAR *at = ++key; *at; at++)
        if (*at == '\\') name = at;
    if (name < key) return FALSE;
    *name++ = 0;
    if (!RegGetValueW(hive, key, name, RRF_RT_REG_SZ | RRF_RT_REG_EXPAND_SZ | RRF_NOEXPAND, NULL, value, &bytes)) return TRUE;
    if (RegGetValueW(hive, key, name, RRF_RT_REG_DWORD, NULL, &number, &size)) return FALSE;
    write_number(value, number);
    return TRUE;
}

static LSTATUS store(BOOL machine, const WCHAR *name, const WCHAR *value)
{
    DWORD type = REG_SZ, bytes = (DWORD)((lstrlenW(value) + 1) * sizeof(WCHAR));
    LSTATUS status;
    HKEY key;

    for (const WCHAR *at = value; *at; at++)
        if (*at == '%') type = REG_EXPAND_SZ;
    status = RegCreateKeyExW(machine ? HKEY_LOCAL_MACHINE : HKEY_CURRENT_USER, machine ? MACHINE_KEY : USER_KEY, 0, NULL, 0,
                             KEY_SET_VALUE, NULL, &key, NULL);
    if (status) return status;
    status = RegSetValueExW(key, name, 0, type, (const BYTE *)value, bytes);
    RegCloseKey(key);
    return status;
}

int wmain(int count, WCHAR **words)
{
    static WCHAR value[32768];
    const WCHAR *name = NULL, *text = NULL;
    WCHAR *source = NULL;
    BOOL machine = FALSE;

    for (int i = 1; i < count; i++) {
        if (is_option(words[i], '?')) return say(STD_OUTPUT_HANDLE, USAGE, 0);
        if (is_option(words[i], 's') || is_option(words[i], 'u') || is_option(words[i], 'p') || is_option(words[i], 'f'))
            return say(STD_ERROR_HANDLE, L"ERROR: /S, /U, /P and /F are not supported in a container.\r\n", 1);
        if (is_option(words[i], 'm')) machine = TRUE;
        else if (is_option(words[i], 'k') && i + 1 < count && !source) source = words[++i];
        else if (!name) name = words[i];
        else if (!text) text = words[i];
        else return invalid();
    }
    if (!name || !*name || !text == !source) return invalid();
    for (const WCHAR *at = name; *at; at++)
        if (*at == '=') return invalid();
    if (source && !read_value(source, value, sizeof(value)))
        return say(STD_ERROR_HANDLE, L"ERROR: The registry value cannot be read.\r\n", 1);
    if (text) lstrcpynW(value, text, sizeof(value) / sizeof(*value));
    if (lstrlenW(value) > MAX_VALUE) {
        value[MAX_VALUE] = 0;
        say(STD_OUTPUT_HANDLE, L"\r\nWARNING: The data being saved is truncated to 1024 characters.\r\n", 0);
    }
    if (store(machine, name, value))
        return say(STD_ERROR_HANDLE, L"ERROR: Access to the registry path is denied.\r\n", 1);
    return say(STD_OUTPUT_HANDLE, L"\r\nSUCCESS: Specified value was saved.\r\n", 0);
}
