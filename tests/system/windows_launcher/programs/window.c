/* window.exe: a program of windows, without a console; ends with code 77 when it is told that the session ends. */
#include <windows.h>

static LRESULT CALLBACK on_message(HWND window, UINT message, WPARAM first, LPARAM second)
{
    if (message == WM_ENDSESSION && first) ExitProcess(77);
    return DefWindowProcW(window, message, first, second);
}

int WINAPI WinMain(HINSTANCE instance, HINSTANCE before, LPSTR command, int show)
{
    WNDCLASSW class = {.lpfnWndProc = on_message, .hInstance = instance, .lpszClassName = L"silo-test"};
    HANDLE ready;
    MSG message;

    (void)before, (void)command, (void)show;
    RegisterClassW(&class);
    CreateWindowW(L"silo-test", L"test", WS_OVERLAPPEDWINDOW, 0, 0, 100, 100, NULL, NULL, instance, NULL);
    ready = CreateFileW(L"C:\\window-ready", GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    CloseHandle(ready);
    while (GetMessageW(&message, NULL, 0, 0) > 0) DispatchMessageW(&message);
    return 3;
}
