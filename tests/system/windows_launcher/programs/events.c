/* events.exe: says "ready", then which console event came, and ends by it; "events.exe parent" starts another one first;
 * "events.exe deaf" has no handler. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

static BOOL WINAPI on_event(DWORD event)
{
    printf("event-%lu\n", event);
    fflush(stdout);
    if (event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT) ExitProcess(70 + event);
    return TRUE;
}

int main(int count, char **words)
{
    if (count > 1 && !strcmp(words[1], "parent")) {
        STARTUPINFOA startup = {sizeof(startup)};
        PROCESS_INFORMATION started;
        CreateProcessA(words[0], "events", NULL, NULL, TRUE, 0, NULL, NULL, &startup, &started);
    }
    if (count < 2 || strcmp(words[1], "deaf")) SetConsoleCtrlHandler(on_event, TRUE);
    puts("ready");
    fflush(stdout);
    Sleep(60000);
    return 5;
}
