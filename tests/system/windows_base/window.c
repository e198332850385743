/* Creates a window, sends itself a message through it, and measures text in Arial. */
#include <windows.h>

int main(void)
{
    HDC device = CreateCompatibleDC(NULL);
    HWND window = CreateWindowA("STATIC", "text", WS_OVERLAPPEDWINDOW, 0, 0, 100, 100, NULL, NULL, NULL, NULL);
    char face[64] = "", title[16] = "", line[128];
    DWORD written;

    SelectObject(device, CreateFontA(-20, 0, 0, 0, FW_NORMAL, 0, 0, 0, 0, 0, 0, 0, 0, "Arial"));
    GetTextFaceA(device, sizeof(face), face);
    SendMessageA(window, WM_GETTEXT, sizeof(title), (LPARAM)title);
    wsprintfA(line, "%s %s", title, face);
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), line, lstrlenA(line), &written, NULL);
    return window ? 0 : 1;
}
