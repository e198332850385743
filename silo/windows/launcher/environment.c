/* The environment of a program, made anew for each one as Windows does at a log-on: fixed names, the machine's registry, the
 * user's registry, then what the request lays over it. Nothing of the Unix environment reaches a program.
 */
#include "launcher.h"

enum { MAX_VALUE_CHARACTERS = 32767, SETTLED_100NS = 10000000 };

/* Wine computed these when the silo started. (Wine's start-up code adds WINE* variables in every process, for itself.) */
static const WCHAR *const COMPUTED[] = {
    L"ALLUSERSPROFILE", L"APPDATA",        L"CommonProgramFiles", L"CommonProgramFiles(x86)", L"CommonProgramW6432",
    L"COMPUTERNAME",    L"ComSpec",        L"HOMEDRIVE",          L"HOMEPATH",                L"LOCALAPPDATA",
    L"LOGONSERVER",     L"ProgramData",    L"ProgramFiles",       L"ProgramFiles(x86)",       L"ProgramW6432",
    L"PUBLIC",          L"SystemDrive",    L"SystemRoot",         L"TEMP",                    L"TMP",
    L"USERDOMAIN",      L"USERNAME",       L"USERPROFILE",        L"windir",
};

static const WCHAR MACHINE_KEY[] = L"System\\CurrentControlSet\\Control\\Session Manager\\Environment";

NTSTATUS NTAPI NtQueryKey(HANDLE key, int information, void *data, ULONG size, ULONG *needed);

typedef LSTATUS(WINAPI *open_key_function)(HKEY, const WCHAR *, DWORD, REGSAM, HKEY *);
typedef LSTATUS(WINAPI *enumerate_function)(HKEY, DWORD, WCHAR *, DWORD *, DWORD *, DWORD *, BYTE *, DWORD *);
typedef LSTATUS(WINAPI *close_key_function)(HKEY);

/* advapi32 costs milliseconds and memory to load; kernelbase is there. */
static open_key_function open_key;
static enumerate_function enumerate_value;
static close_key_function close_key;

/* A value as the registry has it; expanded anew for each program, by what that program's other variables say. */
struct value {
    struct value *next;
    WCHAR *name, *data;
    DWORD type;
};

/* A key whose values were read, and the key's time then. Reading all takes forty calls to Wine's server, asking for the time
 * takes one. `time` 0: not to be relied on. */
struct source {
    HKEY root;
    const WCHAR *path;
    BOOL user;
    HKEY key;
    uint64_t time;
    struct value *values;
};

static struct source sources[] = {
    {HKEY_LOCAL_MACHINE, MACHINE_KEY, FALSE, NULL, 0, NULL},
    {HKEY_CURRENT_USER, L"Environment", TRUE, NULL, 0, NULL},
    {HKEY_CURRENT_USER, L"Volatile Environment", TRUE, NULL, 0, NULL},
};
static SRWLOCK sources_lock = SRWLOCK_INIT;

static size_t name_length(const WCHAR *entry)
{
    size_t length = 0;

    while (entry[length] && (entry[length] != '=' || !length)) length++;
    return length;
}

static WCHAR **find_entry(const struct environment *environment, const WCHAR *name, size_t length)
{
    for (uint32_t index = 0; index < environment->count; index++) {
        WCHAR *entry = environment->entries[index];

        if (name_length(entry) == length && same_text(entry, name, length)) return &environment->entries[index];
    }
    return NULL;
}

const WCHAR *find_variable(const struct environment *environment, const WCHAR *name)
{
    size_t length = wcslen(name);
    WCHAR **entry = find_entry(environment, name, length);

    return entry ? *entry + length + 1 : L"";
}

/* Takes over the entry, which is NAME=VALUE. */
static void set_entry(struct environment *environment, WCHAR *entry)
{
    WCHAR **old = find_entry(environment, entry, name_length(entry));

    if (old) {
        release(*old);
        *old = entry;
        return;
    }
    if (environment->count == environment->capacity) {
        uint32_t capacity = environment->capacity ? environment->capacity * 2 : 64;
        WCHAR **entries = allocate(capacity * sizeof(*entries));

        if (environment->count) memcpy(entries, environment->entries, environment->count * sizeof(*entries));
        release(environment->entries);
        environment->entries = entries;
        environment->capacity = capacity;
    }
    environment->entries[environment->count++] = entry;
}

/* %NAME% by what is known so far; unknown names stay as they are. */
static WCHAR *expand(const struct environment *environment, const WCHAR *text)
{
    WCHAR *result = allocate((MAX_VALUE_CHARACTERS + 1) * sizeof(WCHAR));
    WCHAR *shrunk;
    size_t size = 0;

    while (*text && size < MAX_VALUE_CHARACTERS) {
        const WCHAR *end = *text == '%' ? wcschr(text + 1, '%') : NULL;
        WCHAR **entry = end ? find_entry(environment, text + 1, (size_t)(end - text - 1)) : NULL;

        if (entry) {
            const WCHAR *value = *entry + name_length(*entry) + 1;
            while (*value && size < MAX_VALUE_CHARACTERS) result[size++] = *value++;
            text = end + 1;
        } else
            result[size++] = *text++;
    }
    result[size] = 0;
    shrunk = copy_text(result);
    release(result);
    return shrunk;
}

static void add_registry_value(struct environment *environment, const WCHAR *name, DWORD type, const WCHAR *value, BOOL user)
{
    WCHAR *expanded = type == REG_EXPAND_SZ ? expand(environment, value) : copy_text(value);
    const WCHAR *machine = find_variable(environment, name);

    /* As on Windows, the user's PATH follows the machine's. */
    if (user && *machine && wcslen(name) == 4 && same_text(name, L"PATH", 4)) {
        WCHAR *both = join_text(machine, L";", expanded);
        release(expanded);
        expanded = both;
    }
    set_entry(environment, join_text(name, L"=", expanded));
    release(expanded);
}

static void forget_values(struct source *source)
{
    while (source->values) {
        struct value *value = source->values;

        source->values = value->next;
        release(value->name);
        release(value->data);
        release(value);
    }
    if (source->key) close_key(source->key);
    source->key = NULL;
}

static void read_values(struct source *source)
{
    WCHAR name[256], *data = allocate((MAX_VALUE_CHARACTERS + 1) * sizeof(WCHAR));
    struct value **end = &source->values;

    for (DWORD index = 0;; index++) {
        DWORD name_size = ARRAYSIZE(name), size = MAX_VALUE_CHARACTERS * sizeof(WCHAR), type;
        LSTATUS status = enumerate_value(source->key, index, name, &name_size, NULL, &type, (BYTE *)data, &size);

        if (status == ERROR_MORE_DATA) continue;
        if (status) break;
        data[size / sizeof(WCHAR)] = 0;
        if (!*name || (type != REG_SZ && type != REG_EXPAND_SZ)) continue;
        *end = allocate(sizeof(**end));
        (*end)->next = NULL;
        (*end)->name = copy_text(name);
        (*end)->data = copy_text(data);
        (*end)->type = type;
        end = &(*end)->next;
    }
    release(data);
}

/* When the key was last changed; 0 when it is gone. */
static uint64_t last_write(HKEY key)
{
    struct {
        LARGE_INTEGER time;
        ULONG index, name_size;
        WCHAR name[256];
    } information;
    ULONG size;

    return NtQueryKey(key, 0 /* KeyBasicInformation */, &information, sizeof(information), &size)
               ? 0
               : (uint64_t)information.time.QuadPart;
}

/* Two changes within a moment have the same time: values are kept only when they had been left alone for a second. */
static void refresh(struct source *source)
{
    FILETIME now;

    if (source->time && last_write(source->key) == source->time) return;
    forget_values(source);
    source->time = 0;
    if (!open_key || open_key(source->root, source->path, 0, KEY_READ, &source->key)) {
        source->key = NULL;
        return;
    }
    GetSystemTimeAsFileTime(&now);
    source->time = last_write(source->key);
    if (source->time + SETTLED_100NS > ((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime)) source->time = 0;
    read_values(source);
}

static void add_registry(struct environment *environment)
{
    AcquireSRWLockExclusive(&sources_lock);
    for (size_t index = 0; index < ARRAYSIZE(sources); index++) {
        refresh(&sources[index]);
        for (struct value *value = sources[index].values; value; value = value->next)
            add_registry_value(environment, value->name, value->type, value->data, sources[index].user);
    }
    ReleaseSRWLockExclusive(&sources_lock);
}

static BOOL add_overlay(struct environment *environment, const WCHAR *overlay)
{
    while (*overlay) {
        const WCHAR *end = wcschr(overlay, '\n');
        size_t length = end ? (size_t)(end - overlay) : wcslen(overlay);

        if (length) {
            WCHAR *entry = allocate((length + 1) * sizeof(WCHAR));
            memcpy(entry, overlay, length * sizeof(WCHAR));
            entry[length] = 0;
            if (!entry[name_length(entry)]) {
                release(entry);
                return FALSE;
            }
            set_entry(environment, entry);
        }
        overlay += length + (end != NULL);
    }
    return TRUE;
}

void prepare_environment(void)
{
    HMODULE base = GetModuleHandleW(L"kernelbase.dll");

    open_key = (open_key_function)(void *)GetProcAddress(base, "RegOpenKeyExW");
    enumerate_value = (enumerate_function)(void *)GetProcAddress(base, "RegEnumValueW");
    close_key = (close_key_function)(void *)GetProcAddress(base, "RegCloseKey");
}

BOOL build_environment(struct environment *environment, const WCHAR *overlay)
{
    WCHAR value[1024];

    for (size_t index = 0; index < ARRAYSIZE(COMPUTED); index++) {
        DWORD length = GetEnvironmentVariableW(COMPUTED[index], value, ARRAYSIZE(value));
        if (length && length < ARRAYSIZE(value)) set_entry(environment, join_text(COMPUTED[index], L"=", value));
    }
    add_registry(environment);
    return add_overlay(environment, overlay);
}

static int compare_entries(const WCHAR *one, const WCHAR *other)
{
    for (;; one++, other++) {
        WCHAR first = *one >= 'a' && *one <= 'z' ? *one - 32 : *one;
        WCHAR second = *other >= 'a' && *other <= 'z' ? *other - 32 : *other;

        if (first == '=') first = 1;
        if (second == '=') second = 1;
        if (first != second || !first) return first - second;
    }
}

/* Windows keeps the block sorted by name, and some run-time libraries search it by halves. */
static void sort_entries(const struct environment *environment)
{
    for (uint32_t index = 1; index < environment->count; index++) {
        WCHAR *entry = environment->entries[index];
        uint32_t place = index;

        for (; place && compare_entries(environment->entries[place - 1], entry) > 0; place--)
            environment->entries[place] = environment->entries[place - 1];
        environment->entries[place] = entry;
    }
}

WCHAR *environment_block(const struct environment *environment)
{
    size_t size = 2;
    WCHAR *block, *next;

    sort_entries(environment);
    for (uint32_t index = 0; index < environment->count; index++) size += wcslen(environment->entries[index]) + 1;
    next = block = allocate(size * sizeof(WCHAR));
    for (uint32_t index = 0; index < environment->count; index++) {
        size_t length = wcslen(environment->entries[index]) + 1;
        memcpy(next, environment->entries[index], length * sizeof(WCHAR));
        next += length;
    }
    next[0] = 0;
    if (!environment->count) next[1] = 0;
    return block;
}

void free_environment(struct environment *environment)
{
    for (uint32_t index = 0; index < environment->count; index++) release(environment->entries[index]);
    release(environment->entries);
    environment->entries = NULL;
    environment->count = environment->capacity = 0;
}
