/* ends.exe CODE ends with that code; ends.exe crash by an access violation; ends.exe console says whether it has a console. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

int main(int count, char **words)
{
    const char *word = count > 1 ? words[1] : "0";

    if (!strcmp(word, "crash")) *(volatile int *)8 = 1;
    if (!strcmp(word, "console")) {
        DWORD processes[64];
        printf("%lu processes\n", GetConsoleProcessList(processes, 64));
        return GetConsoleOutputCP() ? 0 : 1;
    }
    ExitProcess(strtoul(word, NULL, 0));
}
