/* absent: stands where Wine has a program that accepts every command line, does nothing and says that all went well. A step of a
   build that calls one would seem to have worked. It goes by the name it is called by.

   What grants or opens something that no silo withholds (permissions of files, a firewall) does nothing here as well, says so, and
   is no failure: images are full of such steps. */

#include <windows.h>

static const WCHAR *const WITHOUT_MEANING[] = {L"netsh", L"icacls", L"cacls"};

static void say(const WCHAR *text)
{
    char bytes[2048];
    DWORD written;
    int length = WideCharToMultiByte(GetConsoleOutputCP() ? GetConsoleOutputCP() : CP_ACP, 0, text, lstrlenW(text), bytes,
                                     sizeof(bytes), NULL, NULL);

    WriteFile(GetStdHandle(STD_ERROR_HANDLE), bytes, (DWORD)length, &written, NULL);
}

/* `powershell` of C:\windows\...\PowerShell.exe */
static void own_name(WCHAR *name, int size)
{
    WCHAR path[MAX_PATH];
    DWORD length = GetModuleFileNameW(NULL, path, MAX_PATH);
    WCHAR *start = path + (length < MAX_PATH ? length : 0);

    *start = 0;
    while (start > path && start[-1] != '\\') start--;
    lstrcpynW(name, start, size);
    for (WCHAR *at = name; *at; at++)
        if (*at == '.') *at = 0;
    CharLowerW(name);
}

int wmain(void)
{
    WCHAR name[64], text[512];

    own_name(name, 64);
    for (unsigned i = 0; i < sizeof(WITHOUT_MEANING) / sizeof(*WITHOUT_MEANING); i++)
        if (!lstrcmpW(name, WITHOUT_MEANING[i])) {
            wsprintfW(text, L"%s: does nothing in a container of Silo's, where it has nothing to grant.\r\n", name);
            say(text);
            return 0;
        }
    wsprintfW(text,
              L"%s: Silo's Windows base does not have this program.\r\n"
              L"Write the step for cmd, or copy a program that does it into the image.\r\n",
              name);
    say(text);
    return 1;
}
