/* The processes of the silo, as `top` shows them. */
#include "launcher.h"
#include <psapi.h>
#include <tlhelp32.h>

static uint64_t ticks(const FILETIME *time)
{
    return (uint64_t)time->dwHighDateTime << 32 | time->dwLowDateTime;
}

static void put_process(struct message *answer, const PROCESSENTRY32W *entry)
{
    PROCESS_MEMORY_COUNTERS memory = {0};
    FILETIME created, ended, kernel = {0}, user = {0};
    HANDLE process = OpenProcess(PROCESS_QUERY_INFORMATION | PROCESS_VM_READ, FALSE, entry->th32ProcessID);

    memory.cb = sizeof(memory);
    if (process) {
        K32GetProcessMemoryInfo(process, &memory, sizeof(memory));
        GetProcessTimes(process, &created, &ended, &kernel, &user);
        CloseHandle(process);
    }
    put_u32(answer, entry->th32ProcessID);
    put_u32(answer, entry->th32ParentProcessID);
    put_u32(answer, entry->cntThreads);
    put_u64(answer, memory.WorkingSetSize);
    put_u64(answer, ticks(&kernel) + ticks(&user));
    put_text(answer, entry->szExeFile);
}

void answer_processes(int socket)
{
    struct message answer = {allocate(MAX_MESSAGE), 0, 0, FALSE};
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry;
    uint32_t count = 0, complete;

    entry.dwSize = sizeof(entry);
    put_u8(&answer, PROCESSES);
    put_u32(&answer, 0);
    complete = answer.size;
    for (BOOL more = Process32FirstW(snapshot, &entry); more; more = Process32NextW(snapshot, &entry)) {
        put_process(&answer, &entry);
        if (answer.broken) break; /* what does not fit is left out */
        complete = answer.size;
        count++;
    }
    memcpy(answer.data + 1, &count, sizeof(count));
    linux_send(socket, answer.data, complete);
    CloseHandle(snapshot);
    release(answer.data);
}
