/* The registry, written to its files now: Wine's server does so every 30 s and at its end, and nothing asks it to (flushing a
 * key is nothing to it). What it saves here has the form of its own files, and takes their place at once.
 */
#include "launcher.h"

enum { BACKUP_PRIVILEGE = 17 };

NTSTATUS NTAPI NtOpenKey(HANDLE *key, ACCESS_MASK access, const OBJECT_ATTRIBUTES *attributes);
NTSTATUS NTAPI NtSaveKey(HANDLE key, HANDLE file);
NTSTATUS NTAPI RtlAdjustPrivilege(ULONG privilege, BOOLEAN enable, BOOLEAN current_thread, BOOLEAN *enabled);
NTSTATUS NTAPI RtlOpenCurrentUser(ACCESS_MASK access, HANDLE *key);

/* `path` NULL: the key of the user who runs all of this. The files are those of the prefix (WINEPREFIX in the base image). */
static const struct {
    const WCHAR *path, *file;
    const char *from, *to;
} branches[] = {
    {L"\\Registry\\Machine", L"\\\\?\\unix\\silo\\prefix\\system.reg.saving", "/silo/prefix/system.reg.saving",
     "/silo/prefix/system.reg"},
    {NULL, L"\\\\?\\unix\\silo\\prefix\\user.reg.saving", "/silo/prefix/user.reg.saving", "/silo/prefix/user.reg"},
    {L"\\Registry\\User\\.Default", L"\\\\?\\unix\\silo\\prefix\\userdef.reg.saving", "/silo/prefix/userdef.reg.saving",
     "/silo/prefix/userdef.reg"},
};

static NTSTATUS open_branch(const WCHAR *path, HANDLE *key)
{
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;

    if (!path) return RtlOpenCurrentUser(KEY_READ, key);
    RtlInitUnicodeString(&name, path);
    InitializeObjectAttributes(&attributes, &name, 0, NULL, NULL);
    return NtOpenKey(key, KEY_READ, &attributes);
}

static DWORD save_branch(size_t index)
{
    HANDLE key, file;
    NTSTATUS status = open_branch(branches[index].path, &key);

    if (status) return RtlNtStatusToDosError(status);
    file = CreateFileW(branches[index].file, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        NtClose(key);
        return GetLastError();
    }
    status = NtSaveKey(key, file);
    NtClose(key);
    CloseHandle(file);
    if (!status && linux_rename(branches[index].from, branches[index].to) < 0) return ERROR_WRITE_FAULT;
    if (status) linux_unlink(branches[index].from);
    return status ? RtlNtStatusToDosError(status) : 0;
}

DWORD save_registry(void)
{
    static SRWLOCK lock = SRWLOCK_INIT;
    BOOLEAN enabled;
    DWORD error = 0;

    AcquireSRWLockExclusive(&lock);
    RtlAdjustPrivilege(BACKUP_PRIVILEGE, TRUE, FALSE, &enabled);
    for (size_t index = 0; index < ARRAYSIZE(branches) && !error; index++) error = save_branch(index);
    ReleaseSRWLockExclusive(&lock);
    return error;
}
