/* streams.exe WORD…: "uv" does to each standard stream what libuv does; "copy" copies input to output; "flood N" writes N MiB;
 * "both" writes to output and error; "child" leaves a child behind that writes after a second. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <winternl.h>

typedef struct { ULONG ReadMode, CompletionMode; } PIPE_MODE;

static int as_libuv(DWORD which)
{
    HANDLE handle = GetStdHandle(which);
    IO_STATUS_BLOCK status;
    PIPE_MODE mode;
    ULONG local[10];
    NTSTATUS read, write, query;

    if (GetFileType(handle) != FILE_TYPE_PIPE) return 1;
    query = NtQueryInformationFile(handle, &status, local, sizeof(local), 24 /* FilePipeLocalInformation */);
    read = NtQueryInformationFile(handle, &status, &mode, sizeof(mode), 23 /* FilePipeInformation */);
    mode.ReadMode = 0;
    write = NtSetInformationFile(handle, &status, &mode, sizeof(mode), 23);
    fprintf(stderr, "%lx %lx %lx\n", query, read, write);
    return query || read || (write && which != STD_INPUT_HANDLE);
}

static void copy(void)
{
    char buffer[65536];
    DWORD count, written;

    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), buffer, sizeof(buffer), &count, NULL) && count)
        WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), buffer, count, &written, NULL);
}

static void flood(int mebibytes)
{
    static char block[65536];
    DWORD written;

    for (int index = 0; index < mebibytes * 16; index++) {
        memset(block, 'a' + index % 26, sizeof(block));
        if (!WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), block, sizeof(block), &written, NULL)) exit(9);
    }
}

static void leave_child(const char *self)
{
    STARTUPINFOA startup = {sizeof(startup)};
    PROCESS_INFORMATION started;
    char command[512];

    snprintf(command, sizeof(command), "\"%s\" late", self);
    CreateProcessA(self, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &started);
    puts("parent");
}

int main(int count, char **words)
{
    const char *word = count > 1 ? words[1] : "";

    if (!strcmp(word, "uv"))
        return as_libuv(STD_INPUT_HANDLE) + 10 * as_libuv(STD_OUTPUT_HANDLE) + 100 * as_libuv(STD_ERROR_HANDLE);
    if (!strcmp(word, "copy")) copy();
    if (!strcmp(word, "flood")) flood(atoi(words[2]));
    if (!strcmp(word, "child")) leave_child(words[0]);
    if (!strcmp(word, "late")) {
        Sleep(1000);
        puts("child");
    }
    if (!strcmp(word, "both")) {
        puts("to output");
        fputs("to error\n", stderr);
    }
    return 0;
}
