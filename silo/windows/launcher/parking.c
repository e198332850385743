/* Programs made ahead: brought to their entry point and stopped there, until the container that wants them is known.
 *
 * A jump to itself lies at the entry point while the process loads its libraries. Whoever meets it has got there, wherever the
 * program was loaded and whatever it loads; the program's own bytes are back before it goes on.
 */
#include "launcher.h"

enum { LIMIT_MS = 30000, MAX_PLACES = 64, MAX_NAME = 48, MAX_PATTERN = 96, CHUNK = 65536 };

static const uint8_t JUMP_TO_ITSELF[] = {0xeb, 0xfe};

/* What build_environment derives from the computer's name. */
static const WCHAR *const NAME_VARIABLES[] = {L"COMPUTERNAME=", L"USERDOMAIN=", L"LOGONSERVER=\\\\"};

/* A name as programs hold it: UTF-16, and the code page of C run-time libraries. Sizes in bytes, without the NUL. */
struct name {
    uint8_t wide[MAX_NAME], narrow[MAX_NAME];
    size_t wide_size, narrow_size;
};

/* Where a name lies in the parked process. */
struct place {
    uint8_t *address;
    BOOL wide;
};

struct pattern {
    uint8_t bytes[MAX_PATTERN];
    size_t size, name_offset;
    BOOL wide;
};

static SRWLOCK lock = SRWLOCK_INIT;
/* There can be one in the life of a silo, because it is the main program. NULL again when it goes on or has ended. */
static struct program *parked;
static struct name parked_name;
static struct place places[MAX_PLACES];
static int place_count;
/* Set when the end may be told of a program that ended on the way to its entry point; NULL for every other. */
static HANDLE end_allowed;

/* NULL for a program that cannot be stopped there: a 32-bit one, one without an entry point of its own, and one of .NET, whose
 * entry point is never reached. */
static uint8_t *find_entry(HANDLE process)
{
    PROCESS_BASIC_INFORMATION basic;
    IMAGE_NT_HEADERS64 headers;
    uint8_t *base;
    LONG offset;

    if (NtQueryInformationProcess(process, ProcessBasicInformation, &basic, sizeof(basic), NULL)) return NULL;
    if (!read_remote(process, (uint8_t *)basic.PebBaseAddress + 0x10 /* ImageBaseAddress */, &base, sizeof(base))) return NULL;
    if (!read_remote(process, base + 0x3c /* e_lfanew */, &offset, sizeof(offset))) return NULL;
    if (!read_remote(process, base + offset, &headers, sizeof(headers))) return NULL;
    if (headers.FileHeader.Machine != IMAGE_FILE_MACHINE_AMD64 || !headers.OptionalHeader.AddressOfEntryPoint) return NULL;
    if (headers.OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_COM_DESCRIPTOR].VirtualAddress) return NULL;
    return base + headers.OptionalHeader.AddressOfEntryPoint;
}

static BOOL replace_code(HANDLE process, uint8_t *place, const uint8_t code[sizeof(JUMP_TO_ITSELF)])
{
    DWORD protection, unused;
    BOOL done;

    if (!VirtualProtectEx(process, place, sizeof(JUMP_TO_ITSELF), PAGE_EXECUTE_READWRITE, &protection)) return FALSE;
    done = WriteProcessMemory(process, place, code, sizeof(JUMP_TO_ITSELF), NULL);
    VirtualProtectEx(process, place, sizeof(JUMP_TO_ITSELF), protection, &unused);
    FlushInstructionCache(process, place, sizeof(JUMP_TO_ITSELF));
    return done;
}

/* Until the thread is there, or the limit is reached, or the process has ended: FALSE. */
static BOOL await_arrival(HANDLE process, HANDLE thread, const uint8_t *entry)
{
    CONTEXT context;
    uint64_t limit = GetTickCount64() + LIMIT_MS;

    do {
        if (WaitForSingleObject(process, 1) != WAIT_TIMEOUT) return FALSE;
        context.ContextFlags = CONTEXT_CONTROL;
    } while (!(GetThreadContext(thread, &context) && context.Rip == (uintptr_t)entry) && GetTickCount64() < limit);
    return TRUE;
}

/* The thread is suspended when this returns, if it still lives. */
static BOOL run_to_entry(HANDLE process, HANDLE thread, uint8_t *entry)
{
    uint8_t original[sizeof(JUMP_TO_ITSELF)];
    CONTEXT context;

    if (!read_remote(process, entry, original, sizeof(original)) || !replace_code(process, entry, JUMP_TO_ITSELF)) return TRUE;
    ResumeThread(thread);
    if (!await_arrival(process, thread, entry)) return FALSE;
    SuspendThread(thread);
    /* Wine stops a thread some time after it was told to; this question is answered when it has. */
    context.ContextFlags = CONTEXT_CONTROL;
    GetThreadContext(thread, &context);
    replace_code(process, entry, original);
    return WaitForSingleObject(process, 0) == WAIT_TIMEOUT;
}

static void set_name(struct name *name, const WCHAR *text)
{
    int size = WideCharToMultiByte(CP_ACP, 0, text, -1, (char *)name->narrow, sizeof(name->narrow), NULL, NULL);

    name->wide_size = wcslen(text) * sizeof(WCHAR);
    memcpy(name->wide, text, name->wide_size + sizeof(WCHAR));
    name->narrow_size = size ? (size_t)size - 1 : 0;
}

static void make_pattern(struct pattern *pattern, const WCHAR *variable, BOOL wide)
{
    size_t length = wcslen(variable), unit = wide ? sizeof(WCHAR) : 1;
    const uint8_t *name = wide ? parked_name.wide : parked_name.narrow;
    size_t name_size = (wide ? parked_name.wide_size : parked_name.narrow_size) + unit;

    memset(pattern, 0, sizeof(*pattern));
    for (size_t index = 0; index < length; index++) pattern->bytes[index * unit] = (uint8_t)variable[index];
    pattern->wide = wide;
    pattern->name_offset = length * unit;
    pattern->size = pattern->name_offset + name_size;
    memcpy(pattern->bytes + pattern->name_offset, name, name_size);
}

/* Pieces of memory overlap, so the same place can be met twice. */
static void note_place(uint8_t *address, BOOL wide)
{
    for (int index = 0; index < place_count; index++)
        if (places[index].address == address) return;
    if (place_count == MAX_PLACES) return;
    places[place_count].address = address;
    places[place_count++].wide = wide;
}

static void search_bytes(const uint8_t *bytes, size_t size, uint8_t *address, const struct pattern *patterns, size_t count)
{
    for (size_t at = 0; at < size; at++)
        for (const struct pattern *pattern = patterns; pattern < patterns + count; pattern++)
            if (bytes[at] == pattern->bytes[0] && size - at >= pattern->size && !memcmp(bytes + at, pattern->bytes, pattern->size))
                note_place(address + at + pattern->name_offset, pattern->wide);
}

static void search_region(HANDLE process, const MEMORY_BASIC_INFORMATION *region, const struct pattern *patterns, size_t count,
                          uint8_t *buffer)
{
    for (size_t offset = 0; offset < region->RegionSize; offset += CHUNK - MAX_PATTERN) {
        size_t size = region->RegionSize - offset < CHUNK ? region->RegionSize - offset : CHUNK;
        uint8_t *address = (uint8_t *)region->BaseAddress + offset;

        if (read_remote(process, address, buffer, size)) search_bytes(buffer, size, address, patterns, count);
    }
}

/* The environment, and copies of it that run-time libraries made when they were loaded. Where the request gave another value to
 * a variable, that stays: only what holds this silo's name is noted. */
static void find_names(HANDLE process)
{
    struct pattern patterns[2 * ARRAYSIZE(NAME_VARIABLES)];
    MEMORY_BASIC_INFORMATION region;
    WCHAR name[MAX_NETBIOS_CHARACTERS + 1];
    DWORD length = GetEnvironmentVariableW(L"COMPUTERNAME", name, ARRAYSIZE(name));
    uint8_t *address = NULL, *buffer;

    if (!length || length >= ARRAYSIZE(name)) return;
    set_name(&parked_name, name);
    for (size_t index = 0; index < ARRAYSIZE(patterns); index++)
        make_pattern(&patterns[index], NAME_VARIABLES[index / 2], index % 2);
    buffer = allocate(CHUNK);
    while (VirtualQueryEx(process, address, &region, sizeof(region))) {
        if (region.State == MEM_COMMIT && region.Type == MEM_PRIVATE &&
            (region.Protect == PAGE_READWRITE || region.Protect == PAGE_EXECUTE_READWRITE))
            search_region(process, &region, patterns, ARRAYSIZE(patterns), buffer);
        address = (uint8_t *)region.BaseAddress + region.RegionSize;
    }
    release(buffer);
}

void park_program(struct program *program)
{
    uint8_t *entry = find_entry(program->process);

    if (entry && !run_to_entry(program->process, program->thread, entry)) end_allowed = CreateEventW(NULL, TRUE, FALSE, NULL);
    else find_names(program->process);
    AcquireSRWLockExclusive(&lock);
    parked = program;
    ReleaseSRWLockExclusive(&lock);
}

void allow_end(void)
{
    if (end_allowed) SetEvent(end_allowed);
}

DWORD start_parked(uint32_t flags, DWORD *pid)
{
    DWORD error = ERROR_NOT_FOUND;

    AcquireSRWLockExclusive(&lock);
    if (parked) {
        parked->flags |= flags;
        *pid = parked->pid;
        ResumeThread(parked->thread);
        parked = NULL;
        allow_end();
        error = 0;
    }
    ReleaseSRWLockExclusive(&lock);
    return error;
}

void await_allowed_end(void)
{
    if (end_allowed) WaitForSingleObject(end_allowed, INFINITE);
    AcquireSRWLockExclusive(&lock);
    parked = NULL;
    ReleaseSRWLockExclusive(&lock);
}

BOOL parked_can_have_name(const WCHAR *text)
{
    struct name name;
    BOOL possible;

    set_name(&name, text);
    AcquireSRWLockExclusive(&lock);
    possible = !parked || !place_count ||
               (name.wide_size == parked_name.wide_size && name.narrow_size == parked_name.narrow_size);
    ReleaseSRWLockExclusive(&lock);
    return possible;
}

DWORD rename_parked(const WCHAR *text)
{
    struct name name;
    DWORD error = 0;

    set_name(&name, text);
    AcquireSRWLockExclusive(&lock);
    for (int index = 0; parked && index < place_count; index++) {
        const struct place *place = &places[index];

        if (!WriteProcessMemory(parked->process, place->address, place->wide ? name.wide : name.narrow,
                                place->wide ? name.wide_size : name.narrow_size, NULL))
            error = GetLastError();
    }
    ReleaseSRWLockExclusive(&lock);
    return error;
}
