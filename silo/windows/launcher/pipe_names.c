/* Names of pipes, and what Wine's server says of them, in NT's words where Windows' own are not enough. */
#include "pipes.h"

enum { MAX_NAME_CHARACTERS = 256 };

NTSTATUS NTAPI NtCreateNamedPipeFile(HANDLE *pipe, ULONG access, OBJECT_ATTRIBUTES *attributes, IO_STATUS_BLOCK *status,
                                     ULONG sharing, ULONG disposition, ULONG options, ULONG message_type,
                                     ULONG message_mode, ULONG nonblocking, ULONG most_instances, ULONG input_bytes,
                                     ULONG output_bytes, LARGE_INTEGER *timeout);

NTSTATUS NTAPI NtOpenEvent(HANDLE *event, ACCESS_MASK access, const OBJECT_ATTRIBUTES *attributes);

/* A pipe that the launcher has made. It is there until the last client has let go of it, however broken, and can be used again. */
struct made {
    struct made *next;
    const WCHAR *name;
};

static struct made *all_made;
static SRWLOCK made_lock = SRWLOCK_INIT;

BOOL is_pipe_name(const WCHAR *name)
{
    static const WCHAR PREFIX[] = L"\\\\.\\pipe\\";
    size_t length = name ? wcslen(name) : 0;

    return length >= ARRAYSIZE(PREFIX) && length <= MAX_NAME_CHARACTERS && same_text(name, PREFIX, ARRAYSIZE(PREFIX) - 1);
}

BOOL same_pipe(const WCHAR *one, const WCHAR *other)
{
    size_t length = wcslen(one);

    return length == wcslen(other) && same_text(one, other, length);
}

static struct made **find_made(const WCHAR *name)
{
    struct made **place = &all_made;

    while (*place && !same_pipe((*place)->name, name)) place = &(*place)->next;
    return place;
}

BOOL pipe_is_made(const WCHAR *name)
{
    BOOL found;

    AcquireSRWLockExclusive(&made_lock);
    found = *find_made(name) != NULL;
    ReleaseSRWLockExclusive(&made_lock);
    return found;
}

void note_pipe_made(const WCHAR *name, BOOL made)
{
    struct made **place, *found;

    AcquireSRWLockExclusive(&made_lock);
    place = find_made(name);
    found = *place;
    if (made && !found) {
        *place = allocate(sizeof(**place));
        **place = (struct made){NULL, copy_text(name)};
    } else if (!made && found) {
        *place = found->next;
        release((void *)found->name);
        release(found);
    }
    ReleaseSRWLockExclusive(&made_lock);
}

/* Wine's CreateNamedPipe takes any pipe of the name for its own, so this is said in NT's words. */
HANDLE create_pipe_instance(const WCHAR *name, BOOL first)
{
    UNICODE_STRING path;
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK status;
    LARGE_INTEGER timeout = {.QuadPart = -500000};
    HANDLE pipe = NULL;

    if (!RtlDosPathNameToNtPathName_U(name, &path, NULL, NULL)) return NULL;
    InitializeObjectAttributes(&attributes, &path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    /* Clients may ask for messages or for bytes: of a pipe of messages both can be had. */
    if (NtCreateNamedPipeFile(&pipe, GENERIC_READ | GENERIC_WRITE | SYNCHRONIZE, &attributes, &status,
                              FILE_SHARE_READ | FILE_SHARE_WRITE, first ? FILE_CREATE : FILE_OPEN, 0, TRUE, TRUE, FALSE,
                              MAX_PIPE_CONNECTIONS, PIPE_BUFFER_BYTES, PIPE_BUFFER_BYTES, &timeout))
        pipe = NULL;
    RtlFreeUnicodeString(&path);
    return pipe;
}

/* A pipe is no event: to be told so is the cheapest way to learn that there is one, and connects to nothing. */
BOOL pipe_exists(const WCHAR *name)
{
    static const NTSTATUS OTHER_TYPE = (NTSTATUS)0xc0000024;
    UNICODE_STRING path;
    OBJECT_ATTRIBUTES attributes;
    HANDLE event;
    NTSTATUS status;

    if (!RtlDosPathNameToNtPathName_U(name, &path, NULL, NULL)) return FALSE;
    InitializeObjectAttributes(&attributes, &path, OBJ_CASE_INSENSITIVE, NULL, NULL);
    status = NtOpenEvent(&event, SYNCHRONIZE, &attributes);
    RtlFreeUnicodeString(&path);
    return status == OTHER_TYPE;
}
