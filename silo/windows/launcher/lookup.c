/* Which file a command line means, and whether it is a program that can run here.
 *
 * The search is CreateProcess's (first word of the command line, blanks included when not quoted; the working directory,
 * the system's directories, PATH), with PATHEXT as cmd.exe adds it. The file's header is read first: Wine's own CreateProcess
 * would run a Unix program, or start a DOS emulator, where Windows says ERROR_BAD_EXE_FORMAT.
 */
#include "launcher.h"

static const WCHAR SYSTEM[] = L"C:\\windows\\system32";
static const WCHAR SHELL[] = L"C:\\windows\\system32\\cmd.exe";

static BOOL is_absolute(const WCHAR *path)
{
    return (path[0] && path[1] == ':' && (path[2] == '\\' || path[2] == '/')) ||
           ((path[0] == '\\' || path[0] == '/') && (path[1] == '\\' || path[1] == '/'));
}

static BOOL has_directory(const WCHAR *name)
{
    return wcschr(name, '\\') || wcschr(name, '/') || wcschr(name, ':');
}

static const WCHAR *extension(const WCHAR *path)
{
    const WCHAR *dot = NULL;

    for (; *path; path++) {
        if (*path == '.') dot = path;
        if (*path == '\\' || *path == '/') dot = NULL;
    }
    return dot ? dot : path;
}

static DWORD probe(const WCHAR *path)
{
    DWORD attributes = GetFileAttributesW(path);

    if (attributes == INVALID_FILE_ATTRIBUTES) return GetLastError();
    return attributes & FILE_ATTRIBUTE_DIRECTORY ? ERROR_ACCESS_DENIED : 0;
}

/* The more telling of two failures: "access denied" beats "no such file", which beats "no such path". */
static DWORD worse(DWORD one, DWORD other)
{
    if (one == ERROR_ACCESS_DENIED || other == ERROR_ACCESS_DENIED) return ERROR_ACCESS_DENIED;
    if (one == ERROR_FILE_NOT_FOUND || other == ERROR_FILE_NOT_FOUND) return ERROR_FILE_NOT_FOUND;
    return one;
}

/* What CreateProcess can start, in the order in which cmd.exe prefers it unless PATHEXT says otherwise. */
static const WCHAR STARTABLE[] = L".COM;.EXE;.BAT;.CMD";

/* The place of a file's extension in PATHEXT, 0 being the first; -1 for one that does not count. */
static int rank(const WCHAR *suffix, const WCHAR *extensions)
{
    size_t size = wcslen(suffix);

    for (int place = 0; *extensions; place++) {
        const WCHAR *end = wcschr(extensions, ';');
        size_t length = end ? (size_t)(end - extensions) : wcslen(extensions);

        if (length && length == size && same_text(suffix, extensions, length)) return place;
        extensions += length + (end != NULL);
    }
    return -1;
}

/* `path` with the best of the extensions. One look at the directory for all of them: every single question for a missing name
 * makes Wine read the whole directory, because names have no case. */
static DWORD add_extension(const WCHAR *path, const WCHAR *extensions, WCHAR **found)
{
    WCHAR *mask = join_text(path, L".*", L""), best[16] = L"";
    size_t base = wcslen(path);
    WIN32_FIND_DATAW entry;
    HANDLE search = FindFirstFileExW(mask, FindExInfoBasic, &entry, FindExSearchNameMatch, NULL, 0);
    DWORD error = GetLastError();
    int best_rank = -1;

    release(mask);
    while (base && path[base - 1] != '\\' && path[base - 1] != '/') base--;
    if (search == INVALID_HANDLE_VALUE) return error;
    do {
        const WCHAR *suffix = extension(entry.cFileName);
        int place = rank(suffix, STARTABLE) < 0 ? -1 : rank(suffix, extensions);

        if (entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY || place < 0 || (best_rank >= 0 && place >= best_rank)) continue;
        if ((size_t)(suffix - entry.cFileName) != wcslen(path + base)) continue;
        best_rank = place;
        memcpy(best, suffix, (wcslen(suffix) + 1) * sizeof(WCHAR));
    } while (FindNextFileW(search, &entry));
    FindClose(search);
    if (best_rank < 0) return ERROR_FILE_NOT_FOUND;
    *found = join_text(path, best, L"");
    return 0;
}

/* `path` itself if it has an extension, then with one of PATHEXT, then as it is. */
static DWORD try_extensions(const WCHAR *path, const WCHAR *extensions, WCHAR **found)
{
    BOOL extended = *extension(path) != 0;
    DWORD error = extended ? probe(path) : ERROR_FILE_NOT_FOUND, status;

    if (extended && !error) {
        *found = copy_text(path);
        return 0;
    }
    if (!(status = add_extension(path, extensions, found))) return 0;
    error = worse(error, status);
    if (extended) return error;
    if (!(status = probe(path))) *found = copy_text(path);
    return status ? worse(error, status) : 0;
}

static DWORD search_directory(const WCHAR *directory, const WCHAR *name, const WCHAR *extensions, WCHAR **found)
{
    WCHAR *path = join_text(directory, L"\\", name);
    DWORD error = try_extensions(path, extensions, found);

    release(path);
    return error;
}

static DWORD search_path(const WCHAR *path, const WCHAR *name, const WCHAR *extensions, WCHAR **found)
{
    DWORD error = ERROR_FILE_NOT_FOUND;

    while (*path) {
        const WCHAR *end = wcschr(path, ';');
        size_t length = end ? (size_t)(end - path) : wcslen(path);
        const WCHAR *start = path;

        path += length + (end != NULL);
        while (length && (*start == ' ' || *start == '"')) start++, length--;
        while (length && (start[length - 1] == ' ' || start[length - 1] == '"' || start[length - 1] == '\\')) length--;
        if (length && length < MAX_PATH_CHARACTERS) {
            WCHAR *directory = allocate((length + 1) * sizeof(WCHAR));
            DWORD status;

            memcpy(directory, start, length * sizeof(WCHAR));
            directory[length] = 0;
            status = search_directory(directory, name, extensions, found);
            release(directory);
            if (!status) return 0;
            if (status == ERROR_ACCESS_DENIED) error = status;
        }
    }
    return error;
}

static DWORD find_file(const WCHAR *name, const WCHAR *directory, const struct environment *environment, WCHAR **found)
{
    const WCHAR *extensions = find_variable(environment, L"PATHEXT");
    DWORD error, status;

    if (!*extensions) extensions = STARTABLE;
    if (!*name || wcslen(name) >= MAX_PATH_CHARACTERS || wcspbrk(name, L"*?<>|\"")) return ERROR_FILE_NOT_FOUND;
    if (is_absolute(name)) return try_extensions(name, extensions, found);
    if (name[0] == '\\' || name[0] == '/') {
        WCHAR drive[3] = {directory[0], ':', 0};
        WCHAR *path = join_text(drive, name, L"");
        error = try_extensions(path, extensions, found);
        release(path);
        return error;
    }
    error = search_directory(directory, name, extensions, found);
    if (!error || has_directory(name)) return error;
    if (!search_directory(SYSTEM, name, extensions, found)) return 0;
    if (!search_directory(L"C:\\windows", name, extensions, found)) return 0;
    status = search_path(find_variable(environment, L"PATH"), name, extensions, found);
    return status ? worse(error, status) : 0;
}

static DWORD read_header(const WCHAR *path, uint8_t *header, DWORD size, DWORD *count)
{
    HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                              0, NULL);
    DWORD error = 0;

    if (file == INVALID_HANDLE_VALUE) return GetLastError();
    if (!ReadFile(file, header, size, count, NULL)) error = GetLastError();
    CloseHandle(file);
    return error;
}

/* 0 if Wine can start this file as a program of this machine. */
static DWORD check_program(const WCHAR *path)
{
    uint8_t header[4096];
    DWORD count = 0, offset, error = read_header(path, header, sizeof(header), &count);
    const IMAGE_FILE_HEADER *file;

    if (error) return error;
    if (count < 64 || header[0] != 'M' || header[1] != 'Z') return ERROR_BAD_EXE_FORMAT;
    memcpy(&offset, header + 60, sizeof(offset));
    if (offset > count || count - offset < sizeof(DWORD) + sizeof(*file)) return ERROR_BAD_EXE_FORMAT;
    if (memcmp(header + offset, "PE\0\0", 4)) return ERROR_BAD_EXE_FORMAT;
    file = (const IMAGE_FILE_HEADER *)(header + offset + 4);
    if (file->Characteristics & IMAGE_FILE_DLL) return ERROR_BAD_EXE_FORMAT;
    if (!(file->Characteristics & IMAGE_FILE_EXECUTABLE_IMAGE)) return ERROR_BAD_EXE_FORMAT;
    if (file->Machine == IMAGE_FILE_MACHINE_AMD64) return 0;
    if (file->Machine == IMAGE_FILE_MACHINE_I386 && !probe(L"C:\\windows\\syswow64\\ntdll.dll")) return 0;
    return ERROR_EXE_MACHINE_TYPE_MISMATCH;
}

static BOOL is_batch(const WCHAR *path)
{
    const WCHAR *ending = extension(path);

    return wcslen(ending) == 4 && (same_text(ending, L".bat", 4) || same_text(ending, L".cmd", 4));
}

/* cmd.exe removes the outer quotes that /s asks for, and finds the file by its full path. */
static WCHAR *shell_command(const WCHAR *file, const WCHAR *arguments)
{
    WCHAR *quoted = join_text(L"cmd.exe /s /c \"\"", file, L"\"");
    WCHAR *whole = join_text(quoted, arguments, L"\"");

    release(quoted);
    return whole;
}

static WCHAR *quote(const WCHAR *file, const WCHAR *arguments)
{
    WCHAR *quoted = join_text(L"\"", file, L"\"");
    WCHAR *whole = join_text(quoted, arguments, L"");

    release(quoted);
    return whole;
}

/* The file that the first words of a command mean; `end` is where the arguments start. */
static DWORD find_first_word(const WCHAR *command, const WCHAR *directory, const struct environment *environment,
                             WCHAR **found, const WCHAR **end)
{
    BOOL quoted = *command == '"';
    const WCHAR *start = command + quoted, *stop = start;
    DWORD error = 0;

    for (;;) {
        WCHAR *name;
        DWORD status;
        size_t length;

        while (*stop && (quoted ? *stop != '"' : *stop != ' ' && *stop != '\t')) stop++;
        length = (size_t)(stop - start);
        name = allocate((length + 1) * sizeof(WCHAR));
        memcpy(name, start, length * sizeof(WCHAR));
        name[length] = 0;
        status = find_file(name, directory, environment, found);
        release(name);
        *end = *stop && quoted ? stop + 1 : stop;
        if (!status) return 0;
        if (!error) error = status;
        /* Only a path may be spread over several words: a missing name would be looked for once a word in all of PATH. */
        if (quoted || !*stop || stop - start > MAX_PATH || !has_directory(command)) return error;
        while (*stop == ' ' || *stop == '\t') stop++;
        if (!*stop) return error;
    }
}

DWORD find_target(struct target *target, const WCHAR *command, const WCHAR *path, const WCHAR *directory,
                  const struct environment *environment)
{
    const WCHAR *arguments = command;
    BOOL spread = FALSE;
    DWORD error;

    while (*command == ' ' || *command == '\t') command++;
    if (*path) {
        BOOL quoted = *command == '"';
        error = find_file(path, directory, environment, &target->file);
        for (arguments = command + quoted; *arguments; arguments++)
            if (quoted ? *arguments == '"' : *arguments == ' ' || *arguments == '\t') break;
        if (quoted && *arguments) arguments++;
    } else {
        error = find_first_word(command, directory, environment, &target->file, &arguments);
        /* As Windows does: else the program would take the rest of its own path for its first argument. */
        if (*command != '"')
            for (const WCHAR *place = command; place < arguments; place++) spread = spread || *place == ' ';
    }
    if (error) return error;
    if (is_batch(target->file)) {
        target->command = shell_command(target->file, arguments);
        release(target->file);
        target->file = copy_text(SHELL);
    } else {
        if ((error = check_program(target->file))) return error;
        target->command = spread ? quote(target->file, arguments) : copy_text(*command ? command : target->file);
    }
    return wcslen(target->command) > MAX_COMMAND_CHARACTERS ? ERROR_FILENAME_EXCED_RANGE : 0;
}

DWORD ensure_directory(const WCHAR *directory)
{
    DWORD attributes = GetFileAttributesW(directory);
    WCHAR *part;

    if (attributes != INVALID_FILE_ATTRIBUTES) return attributes & FILE_ATTRIBUTE_DIRECTORY ? 0 : ERROR_DIRECTORY;
    if (!is_absolute(directory) || wcslen(directory) >= MAX_PATH_CHARACTERS) return ERROR_DIRECTORY;
    part = copy_text(directory);
    for (size_t index = 3; part[index]; index++) {
        if (part[index] != '\\' && part[index] != '/') continue;
        part[index] = 0;
        CreateDirectoryW(part, NULL);
        part[index] = '\\';
    }
    CreateDirectoryW(part, NULL);
    attributes = GetFileAttributesW(part);
    release(part);
    return attributes != INVALID_FILE_ATTRIBUTES && attributes & FILE_ATTRIBUTE_DIRECTORY ? 0 : ERROR_DIRECTORY;
}
