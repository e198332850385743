# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command", "$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue';"]

# Tools land beside the system and every later layer finds them.
RUN New-Item -ItemType Directory C:\tools | Out-Null; `
    # a comment between continued lines
    Invoke-WebRequest -Uri https://example.com/tool.zip -OutFile C:\tool.zip; `
    Expand-Archive C:\tool.zip -DestinationPath C:\tools; `
    Remove-Item C:\tool.zip

SHELL ["cmd", "/S", "/C"]
RUN setx /M PATH "%PATH%;C:\tools;C:\tools\bin"
RUN reg add "HKLM\SOFTWARE\Example" /v Root /d C:\tools /f && `
    tool --version
WORKDIR c:/work
CMD tool serve
