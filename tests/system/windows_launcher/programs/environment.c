/* environment.exe NAME…: what each variable is to the C library, to Windows, and the name that Windows gives the computer. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

int main(int count, char **words)
{
    char text[MAX_COMPUTERNAME_LENGTH + 1], value[256];
    wchar_t wide[256];
    DWORD size = sizeof(text);

    for (int index = 1; index < count; index++) {
        const char *seen = getenv(words[index]);
        wchar_t name[64];

        swprintf(name, 64, L"%hs", words[index]);
        if (!GetEnvironmentVariableA(words[index], value, sizeof(value))) *value = 0;
        if (!GetEnvironmentVariableW(name, wide, 256)) *wide = 0;
        printf("%s %s %ls\n", seen ? seen : "(none)", value, wide);
    }
    GetComputerNameA(text, &size);
    puts(text);
    return 0;
}
